using System.Reflection;
using System.Text;
using TicketFunctions.Triggers;

namespace TicketFunctions.Tests.Triggers;

/// <summary>A sound body is read in one pass; every other one carefully. What the short way takes, the careful one takes for the same.</summary>
public sealed class TicketRequestTests
{
    private const int Seed = 20261130;

    private const string Id = "3f8e2b6e-9d1c-4c0a-8f5b-7a1e2d3c4b5a";

    [Theory]
    [InlineData("""{"id":"@id"}""", null)]
    [InlineData(""" { "id" : "@id" , "description" : "No entra \"nadie\": \u00e9 \ud83d\ude00 é 😀 \n" } """, "No entra \"nadie\": é 😀 é 😀 \n")]
    [InlineData("""{"description":"El texto va delante.","id":"@id"}""", "El texto va delante.")]
    [InlineData("""{"\u0069d":"\u0033f8e2b6e-9d1c-4c0a-8f5b-7a1e2d3c4b5a","descripti\u006fn":"a"}""", "a")]
    [InlineData("""{"id":"3F8E2B6E-9D1C-4C0A-8F5B-7A1E2D3C4B5A"}""", null)]
    public void A_sound_body_is_read_in_one_pass(string body, string? description)
    {
        var utf8 = Encoding.UTF8.GetBytes(WithId(body));
        var expected = new TicketRequest(Guid.Parse(Id), description);

        Assert.Equal(expected, TicketRequest.ReadPlain(utf8));
        Assert.Equal((expected, null), TicketRequest.ReadCarefully(utf8));
    }

    [Fact]
    public void The_longest_text_is_read_in_one_pass_and_a_longer_one_is_not()
    {
        Assert.NotNull(TicketRequest.ReadPlain(Encoding.UTF8.GetBytes(WithId($$"""{"id":"@id","description":"{{new string('ñ', 16_000)}}"}"""))));
        Assert.Null(TicketRequest.ReadPlain(Encoding.UTF8.GetBytes(WithId($$"""{"id":"@id","description":"{{new string('ñ', 16_001)}}"}"""))));
    }

    [Fact]
    public void What_the_tests_of_bad_input_send_is_read_alike_both_ways()
    {
        var texts = typeof(BadInputTests).GetMethods()
            .SelectMany(method => method.GetCustomAttributes<InlineDataAttribute>().SelectMany(data => data.GetData(method)))
            .Select(arguments => arguments?[0]).OfType<string>().Select(WithId).ToList();
        Assert.True(texts.Count > 200, $"{texts.Count} texts");

        foreach (var text in texts)
        {
            AssertAlike(Encoding.UTF8.GetBytes(text));
            AssertAlike(Encoding.UTF8.GetBytes($$"""{"id":"{{text}}"}"""));
            AssertAlike(Encoding.UTF8.GetBytes($$"""{"id":"{{Id}}","description":"{{text}}"}"""));
            AssertAlike(Encoding.UTF8.GetBytes($$"""{"id":"{{Id}}","description":{{text}}}"""));
            AssertAlike(Encoding.UTF8.GetBytes($$"""{"id":"{{Id}}","{{text}}":"a"}"""));
            AssertAlike(Encoding.UTF8.GetBytes($$"""{"id":"{{Id}}"}{{text}}"""));
            if (text.Length % 3 == 2 && text.All(c => c == ' ' || char.IsAsciiHexDigit(c)))
            {
                AssertAlike(Convert.FromHexString(text.Replace(" ", "", StringComparison.Ordinal)));
            }
        }
    }

    [Fact]
    public void Damaged_bodies_are_read_alike_both_ways()
    {
        var random = new Random(Seed);
        var good = Encoding.UTF8.GetBytes(WithId("""{"id":"@id","description":"Hola \u00e9 \ud83d\ude00 é 😀"}"""));
        byte[][] pieces =
        [
            .. new[] { "\\u0000", "\\ud800", "\\udc00", "\\u0069", "\\", "\0", " ", "\n", "\"", "{", "}", ",", ":", "null", "\"id\"", "\"description\":\"a\",", "\ufeff" }
                .Select(Encoding.UTF8.GetBytes),
        ];
        var taken = 0;
        for (var i = 0; i < 20_000; i++)
        {
            List<byte> body = [.. good];
            var at = random.Next(body.Count);
            switch (random.Next(3))
            {
                case 0:
                    body[at] = (byte)random.Next(256);
                    break;
                case 1:
                    body.InsertRange(at, pieces[random.Next(pieces.Length)]);
                    break;
                default:
                    body.RemoveRange(at, random.Next(1, body.Count - at + 1));
                    break;
            }

            taken += AssertAlike([.. body]) ? 1 : 0;
        }

        Assert.InRange(taken, 1_000, 19_000);
    }

    /// <returns>Whether the short way took it.</returns>
    private static bool AssertAlike(byte[] utf8)
    {
        var plain = TicketRequest.ReadPlain(utf8);
        if (plain is not null)
        {
            Assert.Equal((plain, null), TicketRequest.ReadCarefully(utf8));
        }

        return plain is not null;
    }

    private static string WithId(string text) => text.Replace("@id", Id, StringComparison.Ordinal);
}
