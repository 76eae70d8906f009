using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using System.Globalization;
using System.Reflection;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Schema;
using System.Text.Json.Serialization;
using System.Text.Json.Serialization.Metadata;
using Microsoft.AspNetCore.Mvc;
using Microsoft.AspNetCore.Mvc.ApiExplorer;
using Microsoft.AspNetCore.Mvc.Formatters;
using Microsoft.Azure.Functions.Worker;
using Microsoft.OpenApi;
using Microsoft.OpenApi.Reader;
using TicketFunctions.Classification;

namespace TicketFunctions.Triggers;

/// <summary>The OpenAPI 3.1 document of this process, made of the attributes of its functions, the contracts of its JSON and its labels.</summary>
public sealed class OpenApiDescription(Taxonomy taxonomy, WebhookSignatures signatures)
{
    private const string KeyInHeader = "keyInHeader";
    private const string KeyInQuery = "keyInQuery";

    private static readonly (string Maker, Problem Problem)[] Problems = [.. MakeProblems()];

    private readonly Lazy<string> _json = new(() => new Builder(taxonomy, signatures.AreRequired).Build());

    /// <summary>The document; the same as long as the process runs.</summary>
    public string Json => _json.Value;

    /// <summary>One problem of every maker.</summary>
    private static IEnumerable<(string Maker, Problem Problem)> MakeProblems() =>
        from maker in typeof(Problem).GetMethods(BindingFlags.Public | BindingFlags.Static)
        where maker.ReturnType == typeof(Problem) && maker.Name != nameof(Problem.From)
        let arguments = maker.GetParameters().Select<ParameterInfo, object>(parameter =>
            parameter.ParameterType == typeof(string) ? "What happened, and what to do about it."
            : parameter.ParameterType == typeof(IReadOnlyList<ProblemError>) ? new[] { new ProblemError("/id", "What is wrong with this member.") }
            : TimeSpan.FromSeconds(30))
        select (maker.Name, (Problem)maker.Invoke(null, [.. arguments])!);

    private sealed class Builder(Taxonomy taxonomy, bool areSigned)
    {
        /// <summary>The settings of <see cref="AnswerJson"/>, and the names that <see cref="RequestJson"/> has for enums, with a description of every member.</summary>
        private readonly JsonSerializerOptions _contracts = new(AnswerJson.Default.Options)
        {
            Converters = { new JsonStringEnumConverter() },
            TypeInfoResolver = new DefaultJsonTypeInfoResolver(),
        };

        private readonly OpenApiDocument _document = new()
        {
            Info = new OpenApiInfo
            {
                Title = "TicketFunctions",
                Version = typeof(OpenApiDescription).Assembly.GetName().Version!.ToString(3),
                Description = "Gives every support ticket a category and a sentiment.",
            },
            Servers = [new OpenApiServer { Url = "/" }],
            Paths = [],
            Components = new OpenApiComponents
            {
                Schemas = new SortedDictionary<string, IOpenApiSchema>(StringComparer.Ordinal),
                SecuritySchemes = new Dictionary<string, IOpenApiSecurityScheme>
                {
                    [KeyInHeader] = DescribeKey(ParameterLocation.Header, RequestLimit.KeyHeader),
                    [KeyInQuery] = DescribeKey(ParameterLocation.Query, RequestLimit.KeyQuery),
                },
            },
        };

        public string Build()
        {
            foreach (var function in TriggerFunctions.FindHttp().OrderBy(function => function.Path, StringComparer.Ordinal))
            {
                if (!_document.Paths.TryGetValue(function.Path, out var path))
                {
                    _document.Paths[function.Path] = path = new OpenApiPathItem { Operations = [] };
                }

                // HEAD is GET without the body.
                foreach (var verb in function.Verbs.Where(verb => verb != "HEAD"))
                {
                    path.Operations![HttpMethod.Parse(verb)] = Describe(function);
                }
            }

            using var text = new StringWriter(CultureInfo.InvariantCulture);
            _document.SerializeAsV31(new OpenApiJsonWriter(text));
            return text.ToString();
        }

        private OpenApiOperation Describe(HttpFunction function)
        {
            var method = function.Method;
            var bodies = method.GetCustomAttributes<ApiBodyAttribute>().Select(body => DescribeType(body.Type)).ToList();
            var isOpen = function.Level == AuthorizationLevel.Anonymous;
            return new OpenApiOperation
            {
                OperationId = function.Name,
                Tags = new HashSet<OpenApiTagReference>(
                    method.GetCustomAttribute<TagsAttribute>()!.Tags.Select(tag => new OpenApiTagReference(tag, _document))),
                Summary = method.GetCustomAttribute<EndpointSummaryAttribute>()!.Summary,
                Description = method.GetCustomAttribute<EndpointDescriptionAttribute>()?.Description,
                Security = isOpen ? [] : [Require(KeyInHeader), Require(KeyInQuery)],
                Parameters = [.. method.GetCustomAttributes<ApiParameterAttribute>().Select(DescribeParameter)],
                RequestBody = bodies.Count == 0 ? null : new OpenApiRequestBody { Required = true, Content = DescribeContent("application/json", bodies) },
                Responses = DescribeResponses(method, isOpen),
            };
        }

        private OpenApiParameter DescribeParameter(ApiParameterAttribute parameter) => new()
        {
            In = parameter.Location,
            Name = parameter.Name,
            Description = parameter.Description + (parameter.IsSignature && !areSigned ? " Not looked at: no secret is set." : ""),
            Required = parameter.Location == ParameterLocation.Path || (parameter.IsSignature && areSigned),
            Schema = DescribeType(parameter.Type),
            Example = parameter.Example,
        };

        private OpenApiResponses DescribeResponses(MethodInfo method, bool isOpen)
        {
            var responses = new SortedDictionary<int, OpenApiResponse>();
            foreach (var answers in method.GetCustomAttributes<ProducesResponseTypeAttribute>().GroupBy(answer => answer.StatusCode))
            {
                responses[answers.Key] = new OpenApiResponse
                {
                    Description = answers.Select(answer => answer.Description).First(description => description is not null),
                    Content = new Dictionary<string, IOpenApiMediaType>(
                        from answer in answers
                        where answer.Type != typeof(void)
                        from mediaType in ReadMediaTypes(answer)
                        group DescribeType(answer.Type) by mediaType into content
                        from described in DescribeContent(content.Key, [.. content])
                        select described),
                };
            }

            IEnumerable<string> makers = method.GetCustomAttribute<ProducesProblemAttribute>()?.Makers ?? [];
            foreach (var problems in makers.Concat(isOpen ? [] : [nameof(Problem.Unauthorized)])
                .Select(maker => Problems.Single(problem => problem.Maker == maker)).GroupBy(problem => problem.Problem.Status))
            {
                AddProblems(responses, problems.Key, [.. problems]);
            }

            foreach (var header in method.GetCustomAttributes<ProducesHeaderAttribute>())
            {
                responses[header.StatusCode].Headers ??= new Dictionary<string, IOpenApiHeader>();
                responses[header.StatusCode].Headers![header.Name] =
                    new OpenApiHeader { Description = header.Description, Required = true, Schema = DescribeType(typeof(string)) };
            }

            var result = new OpenApiResponses();
            foreach (var (status, response) in responses)
            {
                result[status.ToString(CultureInfo.InvariantCulture)] = response;
            }

            return result;
        }

        private static IEnumerable<string> ReadMediaTypes(IApiResponseMetadataProvider answer)
        {
            var mediaTypes = new MediaTypeCollection();
            answer.SetContentTypes(mediaTypes);
            return mediaTypes.DefaultIfEmpty("application/json");
        }

        private void AddProblems(SortedDictionary<int, OpenApiResponse> responses, int status, IReadOnlyList<(string Maker, Problem Problem)> problems)
        {
            if (!responses.TryGetValue(status, out var response))
            {
                responses[status] = response = new OpenApiResponse
                {
                    Description = string.Join(" ", problems.Select(problem => problem.Problem.Title + ".").Distinct()),
                    Content = new Dictionary<string, IOpenApiMediaType>(),
                };
            }

            response.Content![Problem.MediaType] = new OpenApiMediaType
            {
                Schema = DescribeType(typeof(Problem.Body)),
                Examples = problems.ToDictionary(
                    problem => problem.Maker,
                    IOpenApiExample (problem) => new OpenApiExample { Summary = problem.Problem.Type, Value = Write(problem.Problem) }),
            };
            if (problems.Any(problem => problem.Problem.RetryAfter is not null))
            {
                response.Headers = new Dictionary<string, IOpenApiHeader>
                {
                    ["Retry-After"] = new OpenApiHeader
                    {
                        Description = "When to try again, in seconds.",
                        Required = problems.All(problem => problem.Problem.RetryAfter is not null),
                        Schema = new OpenApiSchema { Type = JsonSchemaType.Integer, Minimum = "1" },
                    },
                };
            }
        }

        private static Dictionary<string, IOpenApiMediaType> DescribeContent(string mediaType, List<IOpenApiSchema> schemas) => new()
        {
            [mediaType] = new OpenApiMediaType { Schema = schemas is [var only] ? only : new OpenApiSchema { OneOf = schemas } },
        };

        private OpenApiSecurityRequirement Require(string scheme) => new() { [new OpenApiSecuritySchemeReference(scheme, _document)] = [] };

        private static OpenApiSecurityScheme DescribeKey(ParameterLocation location, string name) => new()
        {
            Type = SecuritySchemeType.ApiKey,
            In = location,
            Name = name,
            Description = "The function's key, or the admin key.",
        };

        /// <summary>The schema of a type: a reference where it is an object of ours, which is described once.</summary>
        private IOpenApiSchema DescribeType(Type type) => Parse(DescribeContract(_contracts.GetTypeInfo(type)));

        private JsonNode DescribeContract(JsonTypeInfo contract)
        {
            if (contract.Kind != JsonTypeInfoKind.Object)
            {
                return Export(contract);
            }

            var name = contract.Type.DeclaringType?.Name ?? contract.Type.Name;
            var schemas = _document.Components!.Schemas!;
            if (schemas.TryAdd(name, new OpenApiSchema()))
            {
                schemas[name] = Parse(Export(contract));
            }

            return new JsonObject { ["$ref"] = $"#/components/schemas/{name}" };
        }

        private JsonNode Export(JsonTypeInfo contract) => contract.GetJsonSchemaAsNode(
            new JsonSchemaExporterOptions { TreatNullObliviousAsNonNullable = true, TransformSchemaNode = Complete });

        /// <summary>Adds what the attributes say, and refers to the objects within.</summary>
        private JsonNode Complete(JsonSchemaExporterContext context, JsonNode schema)
        {
            var attributes = context.PropertyInfo?.AttributeProvider?.GetCustomAttributes(inherit: true) ?? [];
            if (context.TypeInfo.Kind == JsonTypeInfoKind.Object)
            {
                if (context.Path.IsEmpty)
                {
                    schema["required"] = new JsonArray([.. context.TypeInfo.Properties.Where(IsAlwaysThere).Select(property => (JsonNode)property.Name)]);
                    if (context.TypeInfo.Type == typeof(Problem.Body))
                    {
                        schema["examples"] = new JsonArray([.. Problems.Select(problem => Write(problem.Problem))]);
                    }

                    return schema;
                }

                schema = DescribeContract(context.TypeInfo);
                if (context.PropertyInfo is { IsGetNullable: true })
                {
                    schema = new JsonObject { ["anyOf"] = new JsonArray(schema, new JsonObject { ["type"] = "null" }) };
                }
            }

            // What the constructor takes for a member that is left out is null, and that need not be what null means.
            (schema as JsonObject)?.Remove("default");
            if (attributes.Any(attribute => attribute is JsonIgnoreAttribute) && schema["type"] is JsonArray types)
            {
                // It is left out rather than null.
                schema["type"] = types[0]!.DeepClone();
            }

            if (context.TypeInfo.Type.IsEnum)
            {
                schema["type"] = "string";
            }

            foreach (var attribute in attributes)
            {
                switch (attribute)
                {
                    case DescriptionAttribute text:
                        schema["description"] = text.Description;
                        break;
                    case MinLengthAttribute length:
                        schema["minLength"] = length.Length;
                        break;
                    case MaxLengthAttribute length:
                        schema["maxLength"] = length.Length;
                        break;
                    case RangeAttribute range:
                        schema["minimum"] = (double)range.Minimum;
                        schema["maximum"] = (double)range.Maximum;
                        break;
                    case AllowedValuesAttribute allowed:
                        schema["enum"] = List(allowed.Values.Cast<string>());
                        break;
                }
            }

            if (FindLabels(context.PropertyInfo) is { } labels)
            {
                // Any text beside them: a row that a person labelled, or that was labelled before the labels changed, is answered as it is stored.
                schema["anyOf"] = new JsonArray(
                    new JsonObject { ["type"] = "string", ["enum"] = List(labels.Select(label => label.Label)) }, new JsonObject { ["type"] = "string" });
            }

            if (context.PropertyInfo is { Name: "type" } type && type.DeclaringType == typeof(Problem.Body))
            {
                schema["enum"] = List(Problems.Select(problem => problem.Problem.Type).Distinct());
            }

            return schema;
        }

        /// <summary>The labels that a member may hold, which are known only now.</summary>
        private IReadOnlyList<LabelOptions>? FindLabels(JsonPropertyInfo? property) => (property?.DeclaringType.Name, property?.Name) switch
        {
            (nameof(TicketAnswer), "category") => taxonomy.Categories,
            (nameof(TicketAnswer), "sentiment") => taxonomy.Sentiments,
            _ => null,
        };

        private static bool IsAlwaysThere(JsonPropertyInfo property) =>
            property.AssociatedParameter is not { HasDefaultValue: true }
            && property.AttributeProvider?.IsDefined(typeof(JsonIgnoreAttribute), inherit: true) != true;

        private static JsonArray List(IEnumerable<string> values) => new([.. values.Select(value => (JsonNode)value)]);

        private static JsonNode Write(Problem problem) =>
            JsonSerializer.SerializeToNode(problem.ToBody("0af7651916cd43dd8448eb211c80319c"), AnswerJson.Default.Body)!;

        private IOpenApiSchema Parse(JsonNode schema) =>
            schema["$ref"] is { } reference && schema.AsObject().Count == 1
                ? new OpenApiSchemaReference(((string)reference!).Split('/')[^1], _document)
                : OpenApiModelFactory.Parse<OpenApiSchema>(schema.ToJsonString(), OpenApiSpecVersion.OpenApi3_1, _document, out _, "json")!;
    }
}
