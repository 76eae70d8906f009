using TicketFunctions.Storage;

namespace TicketFunctions.Triggers;

/// <summary>Turns what nobody caught into an answer. Each host puts it around its functions.</summary>
public sealed partial class ProblemAnswers(ILogger<ProblemAnswers> logger)
{
    public async Task RunAsync(HttpContext context, Func<Task> next)
    {
        try
        {
            await next();
        }
        catch (Exception) when (context.RequestAborted.IsCancellationRequested)
        {
            // The client has gone: there is nobody to answer.
        }
        catch (Exception e) when (!context.Response.HasStarted)
        {
            var problem = Problem.From(e);
            if (problem.Status == StatusCodes.Status500InternalServerError)
            {
                Log.Defect(logger, Problem.TraceIdOf(context), StorageFaults.Describe(e));
            }
            else if (StorageFaults.IsUnavailable(e))
            {
                Log.StorageUnavailable(logger, e.GetType().Name, (e as Npgsql.PostgresException)?.SqlState);
            }

            await problem.ExecuteAsync(context);
        }
    }

    private static partial class Log
    {
        [LoggerMessage(Level = LogLevel.Error, Message = "Request {TraceId} failed by a defect: {Details}")]
        public static partial void Defect(ILogger logger, string traceId, string details);

        [LoggerMessage(Level = LogLevel.Warning, Message = "The database is unavailable ({Exception} {SqlState})")]
        public static partial void StorageUnavailable(ILogger logger, string exception, string? sqlState);
    }
}
