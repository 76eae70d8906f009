using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Npgsql;
using TicketFunctions.Floor;

// The least that does the work: no claim, no lease, no trace, no retry, no check of what it is sent. Without words it serves; `drain` empties the table.
// DATABASE: for Npgsql. MODEL: an OpenAI-compatible address. WRITES=gathered: one statement for the writes of concurrent requests. CONCURRENCY: of `drain`.
var settings = new NpgsqlConnectionStringBuilder(Environment.GetEnvironmentVariable("DATABASE"))
{
    MaxPoolSize = 20,
    NoResetOnClose = true,
    SslMode = SslMode.Disable,
    GssEncryptionMode = GssEncryptionMode.Disable,
};
var isGathered = Environment.GetEnvironmentVariable("WRITES") == "gathered" || args is ["drain"];
if (isGathered)
{
    settings.MaxAutoPrepare = 10;
    settings.AutoPrepareMinUsages = 2;
}

var dataSourceBuilder = new NpgsqlSlimDataSourceBuilder(settings.ConnectionString);
dataSourceBuilder.EnableArrays();
await using var dataSource = dataSourceBuilder.Build();
using var model = new Model(Environment.GetEnvironmentVariable("MODEL")!);
if (args is ["drain"])
{
    await Drain.RunAsync(dataSource, model, int.Parse(Environment.GetEnvironmentVariable("CONCURRENCY") ?? "64", System.Globalization.CultureInfo.InvariantCulture));
    return;
}

var builder = WebApplication.CreateSlimBuilder(args);
builder.Logging.ClearProviders();
builder.Services.ConfigureHttpJsonOptions(options => options.SerializerOptions.TypeInfoResolverChain.Insert(0, FloorJson.Default));
var app = builder.Build();
Func<Guid, Labels, Task<bool>> write = isGathered ? new GatheredWrites(dataSource).WriteAsync : WriteAsync;
app.MapPost("/process-ticket", async (TicketBody ticket) =>
{
    var labels = await model.ClassifyAsync(ticket.Description);
    return await write(ticket.Id, labels)
        ? Results.Json(new TicketAnswer(ticket.Id, labels.Category, labels.Sentiment, true), FloorJson.Default.TicketAnswer)
        : Results.NotFound();
});
await app.RunAsync();

async Task<bool> WriteAsync(Guid id, Labels labels)
{
    await using var command = dataSource.CreateCommand("update tickets set category = $1, sentiment = $2, processed = true where id = $3");
    command.Parameters.Add(new NpgsqlParameter<string> { TypedValue = labels.Category });
    command.Parameters.Add(new NpgsqlParameter<string> { TypedValue = labels.Sentiment });
    command.Parameters.Add(new NpgsqlParameter<Guid> { TypedValue = id });
    return await command.ExecuteNonQueryAsync() == 1;
}
