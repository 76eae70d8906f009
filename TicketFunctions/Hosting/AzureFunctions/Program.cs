using Microsoft.Azure.Functions.Worker;
using Microsoft.Azure.Functions.Worker.Builder;
using TicketFunctions;
using TicketFunctions.Hosting.AzureFunctions;

var builder = FunctionsApplication.CreateBuilder(args);
builder.ConfigureFunctionsWebApplication();
builder.UseMiddleware<ProblemMiddleware>();
builder.Services.AddTicketFunctions(builder.Configuration).AddKernelChatClient();
builder.Build().Run();
