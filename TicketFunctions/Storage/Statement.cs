using System.Text.RegularExpressions;
using Npgsql;

namespace TicketFunctions.Storage;

/// <summary>A statement whose parameters, written <c>@name</c>, are numbered once; the driver would look for the names each time it is sent.</summary>
internal sealed partial class Statement
{
    private readonly string _text;
    private readonly Dictionary<string, int> _places = [];

    public Statement(string sql) =>
        _text = Parameter().Replace(sql, match =>
        {
            var name = match.Groups[1].Value;
            _places.TryAdd(name, _places.Count);
            return $"${_places[name] + 1}";
        });

    /// <param name="parameters">All that the statement names, in any order.</param>
    public NpgsqlBatchCommand With(params ReadOnlySpan<NpgsqlParameter> parameters)
    {
        var inPlace = new NpgsqlParameter[_places.Count];
        foreach (var parameter in parameters)
        {
            inPlace[_places[parameter.ParameterName]] = parameter;
            parameter.ParameterName = "";
        }

        var command = new NpgsqlBatchCommand(_text);
        command.Parameters.AddRange(inPlace);
        return command;
    }

    [GeneratedRegex("@([A-Za-z]+)")]
    private static partial Regex Parameter();
}
