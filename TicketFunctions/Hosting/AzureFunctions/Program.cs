using System.Globalization;
using Microsoft.Azure.Functions.Worker;
using Microsoft.Azure.Functions.Worker.Builder;
using TicketFunctions;
using TicketFunctions.Hosting;
using TicketFunctions.Hosting.AzureFunctions;
using TicketFunctions.Tickets;

// As in the plain host: no minus sign and no year may follow the language of the machine.
CultureInfo.CurrentCulture = CultureInfo.DefaultThreadCurrentCulture = CultureInfo.InvariantCulture;

var builder = FunctionsApplication.CreateBuilder(args);
builder.ConfigureFunctionsWebApplication();
builder.UseMiddleware<ProblemMiddleware>();
// The framework would log every address, and a key may stand in its query.
builder.Logging.AddFilter("Microsoft.AspNetCore", LogLevel.Warning);
builder.Services.AddTicketFunctions(builder.Configuration).AddChatClients();
builder.Services.AddHostedService(provider => provider.GetRequiredService<BacklogWatch>());
if (TelemetryExport.IsOn("LOGS", builder.Configuration))
{
    // A Functions host that sends by OTLP itself then leaves out the lines it gets from this process: they arrive by themselves.
    builder.Services.Configure<WorkerOptions>(worker => worker.Capabilities["WorkerOpenTelemetryEnabled"] = bool.TrueString);
}

return WorkerStart.Run(builder.Build());
