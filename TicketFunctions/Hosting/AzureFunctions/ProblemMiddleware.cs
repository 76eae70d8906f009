using Microsoft.Azure.Functions.Worker;
using Microsoft.Azure.Functions.Worker.Middleware;
using TicketFunctions.Triggers;

namespace TicketFunctions.Hosting.AzureFunctions;

/// <summary>Puts the problem answers around every HTTP function; timers pass through.</summary>
internal sealed class ProblemMiddleware(ProblemAnswers problems) : IFunctionsWorkerMiddleware
{
    public Task Invoke(FunctionContext context, FunctionExecutionDelegate next) =>
        context.GetHttpContext() is { } http ? problems.RunAsync(http, _ => next(context)) : next(context);
}
