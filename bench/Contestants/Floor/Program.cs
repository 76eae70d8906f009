using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Npgsql;
using TicketFunctions.Floor;

// The least that does the work: no claim, no lease, no trace, no retry, no check of what it is sent. Without words it serves; `drain` empties the table.
// DATABASE: for Npgsql. MODEL: an OpenAI-compatible address. CONCURRENCY: of `drain`.
// WRITES=gathered: one statement for the writes of concurrent requests; claimed: a mark in the row before the call, so that nobody else pays for it.
var settings = new NpgsqlConnectionStringBuilder(Environment.GetEnvironmentVariable("DATABASE"))
{
    MaxPoolSize = 20,
    NoResetOnClose = true,
    SslMode = SslMode.Disable,
    GssEncryptionMode = GssEncryptionMode.Disable,
};
var writes = Environment.GetEnvironmentVariable("WRITES");
var isGathered = writes == "gathered" || args is ["drain"];
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
if (writes == "claimed")
{
    await ExecuteAsync("alter table tickets add column if not exists claimed_until timestamptz");
}

Func<Guid, Labels, Task<bool>> write = isGathered ? new GatheredWrites(dataSource).WriteAsync : WriteAsync;
app.MapPost("/process-ticket", async (TicketBody ticket) =>
{
    if (writes == "claimed" && await ExecuteAsync(
        "update tickets set claimed_until = now() + interval '2 minutes' where id = $1 and not processed and (claimed_until is null or claimed_until < now())",
        new NpgsqlParameter<Guid> { TypedValue = ticket.Id }) == 0)
    {
        return Results.Conflict();
    }

    var labels = await model.ClassifyAsync(ticket.Description);
    return await write(ticket.Id, labels)
        ? Results.Json(new TicketAnswer(ticket.Id, labels.Category, labels.Sentiment, true), FloorJson.Default.TicketAnswer)
        : Results.NotFound();
});
await app.RunAsync();

async Task<bool> WriteAsync(Guid id, Labels labels) => await ExecuteAsync(
    "update tickets set category = $1, sentiment = $2, processed = true where id = $3",
    new NpgsqlParameter<string> { TypedValue = labels.Category },
    new NpgsqlParameter<string> { TypedValue = labels.Sentiment },
    new NpgsqlParameter<Guid> { TypedValue = id }) == 1;

async Task<int> ExecuteAsync(string sql, params NpgsqlParameter[] parameters)
{
    await using var command = dataSource.CreateCommand(sql);
    command.Parameters.AddRange(parameters);
    return await command.ExecuteNonQueryAsync();
}
