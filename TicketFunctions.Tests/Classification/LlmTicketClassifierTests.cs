using System.ClientModel;
using System.Net.Sockets;
using Microsoft.Extensions.AI;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Options;
using Moq;
using TicketFunctions.Classification;

namespace TicketFunctions.Tests.Classification;

/// <summary>What a client library may throw, which no wire can be made to produce in each of them.</summary>
public sealed class LlmTicketClassifierTests
{
    public static TheoryData<Exception, FailureKind> Faults { get; } = new()
    {
        { new HttpRequestException("secret"), FailureKind.UpstreamUnavailable },
        { new IOException("secret"), FailureKind.UpstreamUnavailable },
        { new ClientResultException("secret"), FailureKind.UpstreamUnavailable },
        { new AggregateException(new HttpRequestException("secret", new SocketException())), FailureKind.UpstreamUnavailable },
        { new TimeoutException("secret"), FailureKind.UpstreamTimeout },
        { new TaskCanceledException("secret"), FailureKind.UpstreamTimeout },

        // What the handler throws when no connection came about in time: nobody was asked, and nothing can have been paid.
        { new TaskCanceledException("secret", new TimeoutException("secret")), FailureKind.UpstreamUnavailable },
        { new OperationCanceledException("secret", new TaskCanceledException("secret", new TimeoutException("secret"))), FailureKind.UpstreamUnavailable },
        { new ArgumentOutOfRangeException("secret"), FailureKind.UpstreamInvalid },
        { new InvalidOperationException("secret"), FailureKind.UpstreamInvalid },
        { new KeyNotFoundException("secret"), FailureKind.UpstreamInvalid },
    };

    [Theory]
    [MemberData(nameof(Faults))]
    public async Task Whatever_a_chat_client_throws_is_an_outcome_that_quotes_nothing_of_it(Exception thrown, FailureKind kind)
    {
        var chat = new Mock<IChatClient>();
        chat.Setup(client => client.GetResponseAsync(It.IsAny<IEnumerable<ChatMessage>>(), It.IsAny<ChatOptions>(), It.IsAny<CancellationToken>()))
            .ThrowsAsync(thrown);

        var result = await Create(chat.Object).ClassifyAsync("No me llega la factura.", CancellationToken.None);

        var failed = Assert.IsType<ClassificationResult.Failed>(result);
        Assert.Equal(kind, failed.Kind);
        Assert.DoesNotContain("secret", failed.Reason, StringComparison.Ordinal);
        chat.Verify(client => client.GetResponseAsync(It.IsAny<IEnumerable<ChatMessage>>(), It.IsAny<ChatOptions>(), It.IsAny<CancellationToken>()), Times.Once);
    }

    [Fact]
    public async Task Cancellation_by_the_caller_is_cancellation_and_no_outcome()
    {
        using var caller = new CancellationTokenSource();
        var chat = new Mock<IChatClient>();
        chat.Setup(client => client.GetResponseAsync(It.IsAny<IEnumerable<ChatMessage>>(), It.IsAny<ChatOptions>(), It.IsAny<CancellationToken>()))
            .Returns(async (IEnumerable<ChatMessage> _, ChatOptions _, CancellationToken token) =>
            {
                await caller.CancelAsync();
                token.ThrowIfCancellationRequested();
                return new ChatResponse();
            });

        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => Create(chat.Object).ClassifyAsync("Hola", caller.Token));
    }

    private static LlmTicketClassifier Create(IChatClient chat)
    {
        var taxonomy = new Taxonomy(new TaxonomyOptions());
        var options = new ModelOptions
        {
            Provider = "compatible",
            Name = "m",
            Endpoint = "http://localhost",
            MaxRetries = 0,
            AttemptTimeout = TimeSpan.FromMinutes(1),
            TotalTimeout = TimeSpan.FromMinutes(1),
        };
        return new LlmTicketClassifier(
            (_, _) => chat, new BaselineTicketClassifier(taxonomy), taxonomy, Options.Create(options), TimeProvider.System, NullLogger<LlmTicketClassifier>.Instance);
    }
}
