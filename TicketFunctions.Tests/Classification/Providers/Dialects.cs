using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Http;
using TicketFunctions.Classification;
using TicketFunctions.Tests.Support;
using Script = System.Func<TicketFunctions.Tests.Support.ModelCall, Microsoft.AspNetCore.Http.HttpContext, System.Threading.Tasks.Task>;

namespace TicketFunctions.Tests.Classification.Providers;

/// <summary>An error as a server reports it.</summary>
/// <param name="Means">How the call is to be recorded.</param>
/// <param name="Status">The HTTP status.</param>
/// <param name="Body">The body; JSON unless it starts like HTML.</param>
/// <param name="Headers">Headers besides the provider's usual ones.</param>
public sealed record WireError(CallOutcome Means, int Status, string Body, params (string Name, string Value)[] Headers);

/// <summary>How the servers of one provider answer on the wire: their usual headers, their chat completions, their errors.</summary>
public sealed class Dialect
{
    /// <summary>Part of every error and of every faulty answer: no text of a server may be told or logged.</summary>
    public const string Canary = "CANARY-77aa";

    /// <summary>The key that is sent.</summary>
    public const string Key = "sk-canary-4411";

    private const string OpenAIAnswer =
        """
        {
          "id": "chatcmpl-CFx0Yt1Yw2", "object": "chat.completion", "created": 1790000000, "model": "gpt-4.1-mini-2025-04-14",
          "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": "", "refusal": null, "annotations": []},
            "logprobs": null,
            "finish_reason": "stop"
          }],
          "usage": {
            "prompt_tokens": 321, "completion_tokens": 17, "total_tokens": 338,
            "prompt_tokens_details": {"cached_tokens": 256, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0, "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0}
          },
          "service_tier": "default", "system_fingerprint": "fp_1a2b3c4d5e"
        }
        """;

    private const string AzureAnswer =
        """
        {
          "id": "chatcmpl-CFx0Yt1Yw2", "object": "chat.completion", "created": 1790000000, "model": "gpt-4.1-mini-2025-04-14",
          "prompt_filter_results": [{
            "prompt_index": 0,
            "content_filter_results": {
              "hate": {"filtered": false, "severity": "safe"},
              "jailbreak": {"filtered": false, "detected": false},
              "self_harm": {"filtered": false, "severity": "safe"},
              "sexual": {"filtered": false, "severity": "safe"},
              "violence": {"filtered": false, "severity": "low"}
            }
          }],
          "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": "", "refusal": null, "annotations": []},
            "content_filter_results": {
              "hate": {"filtered": false, "severity": "safe"},
              "protected_material_code": {"filtered": false, "detected": false},
              "self_harm": {"filtered": false, "severity": "safe"},
              "sexual": {"filtered": false, "severity": "safe"},
              "violence": {"filtered": false, "severity": "safe"}
            },
            "logprobs": null,
            "finish_reason": "stop"
          }],
          "usage": {
            "prompt_tokens": 321, "completion_tokens": 17, "total_tokens": 338,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0, "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0}
          },
          "system_fingerprint": "fp_1a2b3c4d5e"
        }
        """;

    private const string HuggingFaceAnswer =
        """
        {
          "id": "oFx0Yt1-2kFHot-9a1b2c3d4e5f", "object": "chat.completion", "created": 1790000000,
          "model": "meta-llama/Llama-3.3-70B-Instruct-Turbo", "prompt": [],
          "choices": [{
            "finish_reason": "stop", "seed": 10819424213145141000, "logprobs": null, "index": 0,
            "message": {"role": "assistant", "content": "", "tool_calls": []}
          }],
          "usage": {"prompt_tokens": 321, "completion_tokens": 17, "total_tokens": 338, "cached_tokens": 0}
        }
        """;

    private const string OllamaAnswer =
        """
        {
          "id": "chatcmpl-247", "object": "chat.completion", "created": 1790000000, "model": "llama3.2", "system_fingerprint": "fp_ollama",
          "choices": [{"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": "stop"}],
          "usage": {"prompt_tokens": 321, "completion_tokens": 17, "total_tokens": 338}
        }
        """;

    private readonly string _answer;
    private readonly string _keyHeader;
    private readonly string _keyPrefix;

    private Dialect(string provider, string path, (string Header, string Prefix) key, string answer) =>
        (Provider, Path, _keyHeader, _keyPrefix, _answer) = (provider, path, key.Header, key.Prefix, answer);

    /// <summary>Every provider, by its name in the settings.</summary>
    public static IReadOnlyDictionary<string, Dialect> All { get; } = new[]
    {
        new Dialect("openai", "/v1/chat/completions", ("Authorization", "Bearer "), OpenAIAnswer)
        {
            Headers =
            [
                ("x-request-id", "req_7a0c1f"), ("openai-organization", "org-1"), ("openai-processing-ms", "412"), ("openai-version", "2020-10-01"),
                ("x-ratelimit-limit-requests", "500"), ("x-ratelimit-remaining-requests", "499"), ("x-ratelimit-reset-requests", "120ms"),
                ("x-ratelimit-limit-tokens", "200000"), ("x-ratelimit-remaining-tokens", "199583"), ("x-ratelimit-reset-tokens", "125ms"),
            ],
            Errors = new()
            {
                ["bad key"] = new(CallOutcome.Rejected, 401, Tell($"Incorrect API key provided: {Canary} {Key}. You can find your API key at https://platform.openai.com/account/api-keys.", "invalid_request_error", "invalid_api_key")),
                ["no right"] = new(CallOutcome.Rejected, 403, Tell($"Project {Canary} does not have access to model gpt-4.1-mini.", "invalid_request_error", "model_not_found")),
                ["unknown model"] = new(CallOutcome.Rejected, 404, Tell($"The model {Canary} does not exist or you do not have access to it.", "invalid_request_error", "model_not_found")),
                ["bad request"] = new(CallOutcome.Rejected, 400, Tell($"We could not parse the JSON body of your request. {Canary}", "invalid_request_error")),
                ["request too large"] = new(CallOutcome.Rejected, 413, Tell($"Request too large. {Canary}", "invalid_request_error")),
                ["too many requests"] = new(CallOutcome.RateLimited, 429, Tell($"Rate limit reached for gpt-4.1-mini in organization {Canary} on requests per min (RPM): Limit 3, Used 3, Requested 1. Please try again in 20ms. Visit https://platform.openai.com/account/rate-limits to learn more.", "requests", "rate_limit_exceeded")),
                ["too many requests, wait"] = new(CallOutcome.RateLimited, 429, Tell($"Rate limit reached for gpt-4.1-mini in organization {Canary} on tokens per min (TPM).", "tokens", "rate_limit_exceeded"), ("Retry-After", "1"), ("retry-after-ms", "150")),
                ["too many requests, without a card"] = new(CallOutcome.RateLimited, 429, Tell($"Rate limit reached for gpt-4.1-mini in organization {Canary} on requests per min (RPM): Limit 3, Used 3, Requested 1. Please try again in 20ms. Visit https://platform.openai.com/account/rate-limits to learn more. You can increase your rate limit by adding a payment method to your account at https://platform.openai.com/account/billing.", "requests", "rate_limit_exceeded")),
                ["quota spent"] = new(CallOutcome.QuotaSpent, 429, Tell($"You exceeded your current quota, please check your plan and billing details. {Canary}", "insufficient_quota", "insufficient_quota")),
                ["billing limit"] = new(CallOutcome.QuotaSpent, 429, Tell($"Billing hard limit has been reached. {Canary}", "insufficient_quota", "billing_hard_limit_reached")),
                ["failing"] = new(CallOutcome.Unavailable, 500, Tell($"The server had an error while processing your request. Sorry about that! {Canary}", "server_error")),
                ["overloaded"] = new(CallOutcome.Unavailable, 503, Tell($"The engine is currently overloaded, please try again later. {Canary}", "server_error")),
                ["bad gateway"] = new(CallOutcome.Unavailable, 502, $"<html><head><title>502 Bad Gateway</title></head><body><center><h1>502 Bad Gateway</h1></center><hr><center>cloudflare {Canary}</center></body></html>"),
                ["unreachable behind its edge"] = new(CallOutcome.Unavailable, 520, $"<!DOCTYPE html><title>Web server is returning an unknown error {Canary}</title>"),
                ["gateway time-out"] = new(CallOutcome.TimedOut, 504, Tell($"{Canary}", "server_error")),
                ["ticket filtered"] = new(CallOutcome.Filtered, 400, Tell($"Invalid prompt: your prompt was flagged as potentially violating our usage policy. Please try again with a different prompt: https://platform.openai.com/docs/guides/reasoning#advice-on-prompting {Canary}", "invalid_request_error", "invalid_prompt")),
            },
        },
        new Dialect("azure-openai", "/openai/v1/chat/completions", ("api-key", ""), AzureAnswer)
        {
            Headers =
            [
                ("apim-request-id", "2f0c6c55-6f0e-4a1e-9d6a-0f6b1d3c9a11"), ("x-ms-region", "Sweden Central"), ("x-ms-rai-invoked", "true"),
                ("x-ms-deployment-name", "gpt-4.1-mini"), ("x-ratelimit-remaining-requests", "249"), ("x-ratelimit-remaining-tokens", "249583"),
                ("azureml-model-session", "d041-20260801"), ("strict-transport-security", "max-age=31536000; includeSubDomains; preload"),
            ],
            Errors = new()
            {
                ["bad key"] = new(CallOutcome.Rejected, 401, TellAzure("401", $"Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an active subscription and use a correct regional API endpoint for your resource. {Canary} {Key}")),
                ["no right"] = new(CallOutcome.Rejected, 403, TellAzure("403", $"Access denied due to Virtual Network/Firewall rules. {Canary}")),
                ["unknown model"] = new(CallOutcome.Rejected, 404, TellAzure("DeploymentNotFound", $"The API deployment {Canary} does not exist. If you created the deployment within the last 5 minutes, please wait a moment and try again.")),
                ["unknown address"] = new(CallOutcome.Rejected, 404, TellAzure("404", $"Resource not found {Canary}")),
                ["bad request"] = new(CallOutcome.Rejected, 400, TellAzure("BadRequest", $"Invalid input {Canary}")),
                ["too many requests"] = new(CallOutcome.RateLimited, 429, TellAzure("429", $"Requests to the ChatCompletions_Create Operation under Azure OpenAI API have exceeded call rate limit of your current OpenAI S0 pricing tier. Please retry later. Please go here: https://aka.ms/oai/quotaincrease if you would like to further increase the default rate limit. {Canary}")),
                ["too many requests, wait"] = new(CallOutcome.RateLimited, 429, TellAzure("RateLimitReached", $"Your requests to gpt-4.1-mini for gpt-4.1-mini in Sweden Central have exceeded token rate limit. {Canary}"), ("Retry-After", "1"), ("retry-after-ms", "150"), ("x-ratelimit-reset-tokens", "1")),
                ["too many requests, says the gateway"] = new(CallOutcome.RateLimited, 429, $$"""{"statusCode": 429, "message": "Rate limit is exceeded. Try again in 1 seconds. {{Canary}}"}"""),
                ["quota spent"] = new(CallOutcome.QuotaSpent, 429, TellAzure("insufficient_quota", $"You exceeded your current quota, please check your plan and billing details. {Canary}")),
                ["failing"] = new(CallOutcome.Unavailable, 500, TellAzure("InternalServerError", $"Backend returned unexpected response. Please contact Microsoft for help. {Canary}")),
                ["overloaded"] = new(CallOutcome.Unavailable, 503, TellAzure("ServiceUnavailable", $"The service is temporarily unable to process your request. Please try again later. {Canary}")),
                ["operation time-out"] = new(CallOutcome.TimedOut, 408, TellAzure("Timeout", $"The operation was timeout. {Canary}")),
                ["ticket filtered"] = new(
                    CallOutcome.Filtered,
                    400,
                    $$$"""
                    {"error": {
                      "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy. Please modify your prompt and retry. To learn more about our content filtering policies please read our documentation: https://go.microsoft.com/fwlink/?linkid=2198766 {{{Canary}}}",
                      "type": null, "param": "prompt", "code": "content_filter", "status": 400,
                      "innererror": {
                        "code": "ResponsibleAIPolicyViolation",
                        "content_filter_result": {
                          "hate": {"filtered": true, "severity": "high"},
                          "jailbreak": {"filtered": true, "detected": true},
                          "self_harm": {"filtered": false, "severity": "safe"},
                          "sexual": {"filtered": false, "severity": "safe"},
                          "violence": {"filtered": false, "severity": "medium"}
                        }
                      }
                    }}
                    """),
            },
        },
        new Dialect("huggingface", "/v1/chat/completions", ("Authorization", "Bearer "), HuggingFaceAnswer)
        {
            Headers = [("x-inference-provider", "together"), ("x-request-id", "Root=1-68d0a1b2-0c1d2e3f"), ("x-robots-tag", "none")],
            Errors = new()
            {
                ["bad key"] = new(CallOutcome.Rejected, 401, $$"""{"error": "Invalid username or password. {{Canary}} {{Key}}"}"""),
                ["no right"] = new(CallOutcome.Rejected, 403, $$"""{"error": "This authentication method does not have sufficient permissions to call Inference Providers on behalf of user {{Canary}}"}"""),
                ["unknown model"] = new(CallOutcome.Rejected, 400, Tell($"The requested model '{Canary}' does not exist", "invalid_request_error", "model_not_found", "model")),
                ["model of no provider"] = new(CallOutcome.Rejected, 400, Tell($"The requested model '{Canary}' is not supported by any provider you have enabled.", "invalid_request_error", "model_not_supported", "model")),
                ["bad request"] = new(CallOutcome.Rejected, 422, $$"""{"error": "Input validation error: `inputs` must have less than 8192 tokens. {{Canary}}", "error_type": "validation"}"""),
                ["bad request, says the provider"] = new(CallOutcome.Rejected, 400, $$"""{"message": "Bad request {{Canary}}"}"""),
                ["too many requests"] = new(CallOutcome.RateLimited, 429, $$"""{"error": "Rate limit reached. You reached the limit of requests per minute. {{Canary}}"}"""),
                ["too many requests, wait"] = new(CallOutcome.RateLimited, 429, $$"""{"message": "Too many requests {{Canary}}"}""", ("Retry-After", "1")),
                ["too many requests, says the provider"] = new(CallOutcome.RateLimited, 429, Tell($"Rate limit reached for model llama-3.3-70b-versatile in organization {Canary} service tier on_demand on tokens per minute (TPM): Limit 12000, Used 4437, Requested 9854. Please try again in 11.455s. Need more tokens? Upgrade to Dev Tier today at https://console.groq.com/settings/billing", "tokens", "rate_limit_exceeded")),
                ["overloaded, says the model"] = new(CallOutcome.RateLimited, 429, $$"""{"error": "Model is overloaded {{Canary}}", "error_type": "overloaded"}"""),
                ["quota spent"] = new(CallOutcome.QuotaSpent, 402, $$"""{"error": "You have exceeded your monthly included credits for Inference Providers. Subscribe to PRO to get 20x more monthly included credits. {{Canary}}"}"""),
                ["failing"] = new(CallOutcome.Unavailable, 500, $$"""{"error": "Internal Server Error {{Canary}}"}"""),
                ["failing without a word"] = new(CallOutcome.Unavailable, 500, ""),
                ["overloaded"] = new(CallOutcome.Unavailable, 503, $$"""{"error": "Service Unavailable {{Canary}}"}"""),
                ["loading"] = new(CallOutcome.Unavailable, 503, $$"""{"error": "Model {{Canary}} is currently loading", "estimated_time": 20.0}"""),
                ["generation failed"] = new(CallOutcome.Unavailable, 424, $$"""{"error": "Request failed during generation: {{Canary}}", "error_type": "generation"}"""),
                ["gateway time-out"] = new(CallOutcome.TimedOut, 504, $"<html><body><h1>504 Gateway Time-out</h1>{Canary}</body></html>"),
            },
        },
        new Dialect("ollama", "/v1/chat/completions", ("Authorization", "Bearer "), OllamaAnswer)
        {
            Errors = new()
            {
                ["bad key"] = new(CallOutcome.Rejected, 401, $$"""{"error": "unauthorized {{Canary}} {{Key}}"}"""),
                ["bad key, says the proxy"] = new(CallOutcome.Rejected, 401, $"<html><head><title>401 Authorization Required</title></head><body><center><h1>401 Authorization Required</h1></center><hr><center>nginx {Canary}</center></body></html>"),
                ["no right, from this origin"] = new(CallOutcome.Rejected, 403, ""),
                ["unknown model"] = new(CallOutcome.Rejected, 404, Tell($"model \"{Canary}\" not found, try pulling it first", "not_found_error")),
                ["unknown address"] = new(CallOutcome.Rejected, 404, "404 page not found"),
                ["bad request"] = new(CallOutcome.Rejected, 400, Tell($"invalid message content type: {Canary}", "invalid_request_error")),
                ["no chat model"] = new(CallOutcome.Rejected, 400, Tell($"\"{Canary}\" does not support chat", "api_error")),
                ["too many requests"] = new(CallOutcome.RateLimited, 429, Tell($"too many concurrent requests {Canary}", "api_error")),
                ["too many requests, wait"] = new(CallOutcome.RateLimited, 429, $"<html><head><title>429 Too Many Requests</title></head><body>{Canary}</body></html>", ("Retry-After", "1")),
                ["failing"] = new(CallOutcome.Unavailable, 500, Tell($"llama runner process has terminated: exit status 2 {Canary}", "api_error")),
                ["failing for want of memory"] = new(CallOutcome.Unavailable, 500, Tell($"model requires more system memory (5.6 GiB) than is available (4.2 GiB) {Canary}", "api_error")),
                ["overloaded"] = new(CallOutcome.Unavailable, 503, Tell($"server busy, please try again.  maximum pending requests exceeded {Canary}", "api_error")),
                ["overloaded, says the old form"] = new(CallOutcome.Unavailable, 503, $$"""{"error": "server busy, please try again.  maximum pending requests exceeded {{Canary}}"}"""),
                ["bad gateway"] = new(CallOutcome.Unavailable, 502, $$"""{"error": "upstream error {{Canary}}"}"""),
            },
        },
    }.ToDictionary(dialect => dialect.Provider);

    /// <summary>Its name in the settings.</summary>
    public string Provider { get; }

    /// <summary>Where chat completions are.</summary>
    public string Path { get; }

    /// <summary>Of every answer.</summary>
    public (string Name, string Value)[] Headers { get; private init; } = [];

    /// <summary>What its servers report besides chat completions.</summary>
    public Dictionary<string, WireError> Errors { get; private init; } = [];

    /// <summary>Each provider with each of these.</summary>
    public static TheoryData<string, string> Cross(IEnumerable<string> names) => Cross(_ => names);

    /// <summary>Each provider with each of its own.</summary>
    public static TheoryData<string, string> Cross(Func<string, IEnumerable<string>> names)
    {
        var cells = new TheoryData<string, string>();
        foreach (var provider in All.Keys)
        {
            foreach (var name in names(provider))
            {
                cells.Add(provider, name);
            }
        }

        return cells;
    }

    /// <summary>A chat completion with this content.</summary>
    public JsonObject Complete(string? content, string? finishReason = "stop")
    {
        var answer = JsonNode.Parse(_answer)!.AsObject();
        var choice = answer["choices"]![0]!;
        choice["finish_reason"] = finishReason;
        choice["message"]!["content"] = content;
        return answer;
    }

    /// <summary>Answers a well-formed request as this provider does, and one that is not for it by an error.</summary>
    public Script Serve(Script script) => (call, context) =>
    {
        var refusal = context.Request.Path != Path ? new WireError(CallOutcome.Rejected, 404, "404 page not found")
            : context.Request.Headers[_keyHeader] != _keyPrefix + Key ? Errors["bad key"]
            : null;
        foreach (var (name, value) in Headers)
        {
            context.Response.Headers[name] = value;
        }

        return (refusal is null ? script : Report(refusal))(call, context);
    };

    public static Script Report(WireError error) =>
        ModelStub.Raw(error.Status, error.Body.StartsWith('<') ? "text/html" : "application/json", error.Body, error.Headers);

    /// <summary>A whole response, head and body, for a server that writes bytes.</summary>
    public string Write(string body, string contentType = "application/json", params (string Name, string Value)[] more) =>
        $"HTTP/1.1 200 OK\r\nContent-Type: {contentType}\r\nContent-Length: {System.Text.Encoding.UTF8.GetByteCount(body)}\r\n"
        + $"{string.Concat(Headers.Concat(more).Select(header => $"{header.Name}: {header.Value}\r\n"))}\r\n{body}";

    private static string Tell(string message, string type, string? code = null, string? param = null) => new JsonObject
    {
        ["error"] = new JsonObject { ["message"] = message, ["type"] = type, ["param"] = param, ["code"] = code },
    }.ToJsonString();

    private static string TellAzure(string code, string message) =>
        new JsonObject { ["error"] = new JsonObject { ["code"] = code, ["message"] = message } }.ToJsonString();
}
