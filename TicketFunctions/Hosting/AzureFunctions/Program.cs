using Microsoft.Azure.Functions.Worker.Builder;
using TicketFunctions;
using TicketFunctions.Hosting;
using TicketFunctions.Hosting.AzureFunctions;

var builder = FunctionsApplication.CreateBuilder(args);
builder.ConfigureFunctionsWebApplication();
builder.UseMiddleware<ProblemMiddleware>();
// The framework would log every address, and a key may stand in its query.
builder.Logging.AddFilter("Microsoft.AspNetCore", LogLevel.Warning);
builder.Services.AddTicketFunctions(builder.Configuration).AddChatClients();
return WorkerStart.Run(builder.Build());
