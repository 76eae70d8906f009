using System.Net;
using Microsoft.Extensions.Logging;
using TicketFunctions.Tests.Support;

namespace TicketFunctions.Tests.Triggers;

public sealed class ProcessTicketTests(TicketApp app) : IClassFixture<TicketApp>
{
    [Fact]
    public async Task A_ticket_gets_the_models_labels_and_the_row_carries_them()
    {
        const string Text = "No puedo iniciar sesión desde ayer, me da error 500.";
        var id = await app.AddTicketAsync(Text);

        var response = await app.ProcessAsync(id, Text);

        Assert.Equal(HttpStatusCode.OK, response.StatusCode);
        var answer = await response.ReadJsonAsync();
        Assert.Equal(
            $$"""{"id":"{{id}}","category":"Tecnico","sentiment":"Negativo","processed":true,"source":"model","model":"stub-model","confidence":null}""",
            answer.ToJsonString());
        Assert.Equal(new TicketRow(id, Text, "Tecnico", "Negativo", true), await app.ReadTicketAsync(id));
        Assert.Single(app.Model.CallsFor(Text));
        Assert.Equal(0, await app.QuerySingleAsync<int>("select count(*) from ticket_work where ticket_id = @id", new { id }));
        Assert.DoesNotContain(app.Log, entry => entry.Level >= LogLevel.Warning);
    }
}
