using System.Collections.Concurrent;
using System.Net;
using System.Net.Http.Json;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json.Nodes;
using Dapper;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;
using Npgsql;
using TicketFunctions.Tests.Support;
using TicketFunctions.Tickets;

namespace TicketFunctions.Tests.Tickets;

public sealed class TriageTests(TicketApp app) : IClassFixture<TicketApp>, IAsyncLifetime
{
    private static readonly Func<ModelCall, HttpContext, Task> First = ModelStub.Labels("Otro", "Neutral");
    private static readonly Func<ModelCall, HttpContext, Task> Second = ModelStub.Labels("Facturacion", "Positivo");

    private int _logged;

    public async Task InitializeAsync()
    {
        await app.ExecuteAsync("delete from tickets");
        app.Model.Default = ModelStub.Labels("Tecnico", "Negativo");
        _logged = app.Log.Count;
    }

    public Task DisposeAsync() => Task.CompletedTask;

    [Theory]
    [InlineData(false, false)]
    [InlineData(false, true)]
    [InlineData(true, false)]
    [InlineData(true, true)]
    public async Task A_worker_whose_lease_ended_changes_nothing_once_another_one_has_finished(bool firstIsSweep, bool firstFails)
    {
        var text = $"el primero tarda demasiado, barrido: {firstIsSweep}, falla: {firstFails}";
        var id = await app.AddTicketAsync(text);
        var hold = new ModelHold();
        app.Model.On(text, ModelStub.Sequence(ModelStub.Held(hold, firstFails ? ModelStub.Json(500, new JsonObject()) : First), Second));

        var sweep = firstIsSweep ? app.SweepAsync() : null;
        var request = firstIsSweep ? null : app.ProcessAsync(id);
        await hold.Arrived;
        await app.LetTimePassAsync();
        var second = await (await app.ProcessAsync(id)).ReadJsonAsync();
        Assert.Equal(("Facturacion", "model"), ((string?)second["category"], (string?)second["source"]));
        var row = await ReadWholeRowAsync(id);

        hold.Release();
        if (sweep is not null)
        {
            var summary = await sweep;
            Assert.Equal((1, 0, 0), (summary.Claimed, summary.Labelled, summary.Waiting));
        }
        else
        {
            // The first client gets the labels that stand.
            var first = await (await request!).ReadJsonAsync();
            Assert.Equal(("Facturacion", "Positivo", "stored"), ((string?)first["category"], (string?)first["sentiment"], (string?)first["source"]));
        }

        Assert.Equal(row, await ReadWholeRowAsync(id));
        var decision = Assert.Single(await ReadDecisionsAsync(id));
        Assert.Equal(("Facturacion", "Positivo", 2), (decision.Category, decision.Sentiment, decision.Attempts));
        Assert.Equal(0, await CountWorkAsync(id));
        Assert.Equal(2, app.Model.CallsFor(text).Count);
    }

    [Theory]
    [InlineData("labels")]
    [InlineData("no labels")]
    [InlineData("stopped")]
    public async Task A_worker_whose_lease_ended_takes_nothing_from_the_one_that_has_the_ticket_now(string firstEndsWith)
    {
        var text = $"el segundo todavía piensa, el primero acaba con {firstEndsWith}";
        var id = await app.AddTicketAsync(text);
        var firstHold = new ModelHold();
        var secondHold = new ModelHold();
        app.Model.On(text, ModelStub.Sequence(
            ModelStub.Held(firstHold, firstEndsWith == "labels" ? First : ModelStub.Json(500, new JsonObject())),
            ModelStub.Held(secondHold, Second)));
        using var stopping = new CancellationTokenSource();
        var first = app.Services.GetRequiredService<TicketTriage>().ProcessAsync(id, null, false, default, stopping.Token);
        await firstHold.Arrived;
        await app.LetTimePassAsync();
        var second = app.ProcessAsync(id);
        await secondHold.Arrived;
        var work = await ReadWorkAsync(id);

        if (firstEndsWith == "stopped")
        {
            await stopping.CancelAsync();
            await Assert.ThrowsAnyAsync<OperationCanceledException>(() => first);
        }
        else
        {
            firstHold.Release();
            Assert.IsType<TriageResult.InProgress>(await first);
        }

        Assert.Equal(work, await ReadWorkAsync(id));
        Assert.Equal(new TicketRow(id, text, null, null, false), await app.ReadTicketAsync(id));

        secondHold.Release();
        Assert.Equal("Facturacion", (string?)(await (await second).ReadJsonAsync())["category"]);
        Assert.Equal(("Facturacion", 2), (await ReadDecisionsAsync(id)).Select(decision => (decision.Category, decision.Attempts)).Single());
        Assert.Equal(2, app.Model.CallsFor(text).Count);
    }

    [Fact]
    public async Task A_claim_that_meets_a_classification_being_committed_waits_for_it_and_answers_with_its_labels()
    {
        const string Text = "otro proceso está guardando este ticket";
        var id = await app.AddTicketAsync(Text);
        await using var other = await OpenAsync();
        await using var transaction = await other.BeginTransactionAsync();
        await other.ExecuteAsync("update tickets set category = 'Comercial', sentiment = 'Positivo', processed = true where id = @id", new { id });
        await other.ExecuteAsync(
            """
            insert into ticket_decisions (
              ticket_id, category, sentiment, confidence, source, provider, model, prompt_version,
              taxonomy_version, parameters, text_sha256, model_calls, latency_ms, attempts
            )
            values (@id, 'Comercial', 'Positivo', 0.5, 'model', 'compatible', 'another-model', '', '', '{}', sha256(''), 1, 1, 1)
            """,
            new { id });

        var request = app.ProcessAsync(id);
        await WaitUntilBlockedAsync(1);

        // A sweep does not wait: it passes over the ticket.
        Assert.Equal(0, (await app.SweepAsync()).Claimed);
        await transaction.CommitAsync();
        var row = await ReadWholeRowAsync(id);

        Assert.Equal(
            $$"""{"id":"{{id}}","category":"Comercial","sentiment":"Positivo","processed":true,"source":"stored","model":"another-model","confidence":0.5}""",
            (await (await request).ReadJsonAsync()).ToJsonString());
        Assert.Equal(row, await ReadWholeRowAsync(id));
        Assert.Empty(app.Model.CallsFor(Text));
        Assert.Equal(0, await CountWorkAsync(id));
    }

    [Fact]
    public async Task Twenty_requests_for_a_ticket_cost_one_call_one_after_the_other_as_well_as_at_once()
    {
        const string OneByOne = "veinte veces, una detrás de otra";
        const string AtOnce = "veinte veces a la vez";
        var oneByOne = await app.AddTicketAsync(OneByOne);
        var atOnce = await app.AddTicketAsync(AtOnce);

        var sources = new List<string?>();
        for (var n = 0; n < 20; n++)
        {
            sources.Add((string?)(await (await app.ProcessAsync(oneByOne)).ReadJsonAsync())["source"]);
        }

        Assert.Equal(["model", .. Enumerable.Repeat("stored", 19)], sources);
        Assert.Single(app.Model.CallsFor(OneByOne));

        var answers = await Task.WhenAll(Enumerable.Range(0, 20).Select(n => n % 4 == 0 ? PostWebhookAsync(atOnce, AtOnce) : app.ProcessAsync(atOnce, AtOnce)));

        // Whoever came while the ticket was under way is told to ask again, and the work is done once.
        Assert.All(answers, answer => Assert.True(answer.StatusCode is HttpStatusCode.OK or HttpStatusCode.Conflict, $"{answer.StatusCode}"));
        Assert.Single(app.Model.CallsFor(AtOnce));
        Assert.Single(await ReadDecisionsAsync(atOnce));
        Assert.True((await app.ReadTicketAsync(atOnce)).Processed);
    }

    [Fact]
    public async Task A_processed_ticket_answers_ten_times_with_its_labels_and_nothing_is_written_or_called()
    {
        const string Text = "diez veces lo mismo";
        var id = await app.AddTicketAsync(Text);
        await app.ProcessAsync(id);
        var row = await ReadWholeRowAsync(id);

        for (var n = 0; n < 10; n++)
        {
            var response = await app.ProcessAsync(id, n % 2 == 0 ? Text : null);
            Assert.Equal(HttpStatusCode.OK, response.StatusCode);
            Assert.Equal(
                $$"""{"id":"{{id}}","category":"Tecnico","sentiment":"Negativo","processed":true,"source":"stored","model":"stub-model","confidence":null}""",
                (await response.ReadJsonAsync()).ToJsonString());
        }

        Assert.Equal(row, await ReadWholeRowAsync(id));
        Assert.Single(app.Model.CallsFor(Text));
        Assert.Single(await ReadDecisionsAsync(id));
        Assert.Equal(0, await CountWorkAsync(id));
    }

    [Theory]
    [InlineData("processed = true", PostgresErrorCodes.CheckViolation)]
    [InlineData("processed = true, category = 'Tecnico'", PostgresErrorCodes.CheckViolation)]
    [InlineData("processed = true, sentiment = 'Neutral'", PostgresErrorCodes.CheckViolation)]
    [InlineData("processed = true, category = null, sentiment = null", PostgresErrorCodes.CheckViolation)]
    [InlineData("processed = null, category = 'Tecnico', sentiment = 'Neutral'", PostgresErrorCodes.NotNullViolation)]
    [InlineData("description = 'otro texto'", PostgresErrorCodes.InsufficientPrivilege)]
    [InlineData("processed = true, category = 'Tecnico', sentiment = 'Neutral'", null)]
    public async Task Even_the_apps_own_role_cannot_make_a_row_processed_without_both_labels(string change, string? refusedWith)
    {
        var id = await app.AddTicketAsync("a medias no");
        await using var connection = await OpenAsync();
        await using var transaction = await connection.BeginTransactionAsync();
        await connection.ExecuteAsync("set local role ticket_functions");

        var exception = await Record.ExceptionAsync(() => connection.ExecuteAsync($"update tickets set {change} where id = @id", new { id }));

        Assert.Equal(refusedWith, (exception as PostgresException)?.SqlState);
        await transaction.RollbackAsync();
    }

    [Fact]
    public async Task A_label_cannot_be_taken_away_from_a_processed_row_and_a_decision_cannot_be_changed()
    {
        var id = await app.AddTicketAsync("no se le quita nada");
        await app.ProcessAsync(id);
        var row = await ReadWholeRowAsync(id);
        (string Sql, string SqlState)[] attempts =
        [
            ("update tickets set category = null where id = @id", PostgresErrorCodes.CheckViolation),
            ("update tickets set sentiment = null where id = @id", PostgresErrorCodes.CheckViolation),
            ("delete from tickets where id = @id", PostgresErrorCodes.InsufficientPrivilege),
            ("update ticket_decisions set category = 'Otro' where ticket_id = @id", PostgresErrorCodes.InsufficientPrivilege),
            ("reset role; update ticket_decisions set category = 'Otro' where ticket_id = @id", PostgresErrorCodes.RestrictViolation),
            ("reset role; delete from ticket_decisions where ticket_id = @id", PostgresErrorCodes.RestrictViolation),
        ];

        foreach (var (sql, sqlState) in attempts)
        {
            await using var connection = await OpenAsync();
            await connection.ExecuteAsync("set role ticket_functions");
            Assert.Equal(sqlState, (await Assert.ThrowsAsync<PostgresException>(() => connection.ExecuteAsync(sql, new { id }))).SqlState);
        }

        Assert.Equal(row, await ReadWholeRowAsync(id));
        Assert.Single(await ReadDecisionsAsync(id));
    }

    [Fact]
    public async Task Of_fifty_requests_at_once_one_wins_and_the_others_are_told_to_ask_again()
    {
        const string Text = "cincuenta a la vez";
        var id = await app.AddTicketAsync(Text);
        var hold = app.Model.Hold(Text);

        var requests = Enumerable.Range(0, 50).Select(_ => app.ProcessAsync(id)).ToList();
        await hold.Arrived;
        for (var n = 0; n < 49; n++)
        {
            var finished = await Task.WhenAny(requests);
            requests.Remove(finished);
            var refused = await finished;
            await refused.AssertProblemAsync(409, "ticket-in-progress");
            Assert.InRange(refused.Headers.RetryAfter!.Delta!.Value, TimeSpan.FromSeconds(1), TimeSpan.FromSeconds(90));
        }

        hold.Release();
        var won = await (await Assert.Single(requests)).ReadJsonAsync();
        Assert.Equal("model", (string?)won["source"]);
        Assert.Single(app.Model.CallsFor(Text));
        Assert.Single(await ReadDecisionsAsync(id));
        Assert.DoesNotContain(LogSince(), entry => entry.Level >= LogLevel.Warning);
    }

    [Fact]
    public async Task Requests_that_meet_the_moment_of_writing_get_the_stored_labels_or_are_told_to_ask_again()
    {
        for (var round = 1; round <= 5; round++)
        {
            var text = $"justo cuando se guarda, vuelta {round}";
            var id = await app.AddTicketAsync(text);

            var answers = await Task.WhenAll(Enumerable.Range(0, 50).Select(_ => app.ProcessAsync(id)));

            var labels = await Task.WhenAll(answers.Where(answer => answer.StatusCode == HttpStatusCode.OK).Select(HttpAnswers.ReadJsonAsync));
            Assert.Single(labels, answer => (string?)answer["source"] == "model");
            Assert.All(labels, answer => Assert.Equal(
                ("Tecnico", "Negativo", "stub-model"), ((string?)answer["category"], (string?)answer["sentiment"], (string?)answer["model"])));
            foreach (var refused in answers.Where(answer => answer.StatusCode != HttpStatusCode.OK))
            {
                await refused.AssertProblemAsync(409, "ticket-in-progress");
                Assert.NotNull(refused.Headers.RetryAfter);
            }

            Assert.Single(app.Model.CallsFor(text));
            Assert.Single(await ReadDecisionsAsync(id));
        }
    }

    [Fact]
    public async Task A_client_that_goes_away_does_not_take_the_work_with_it()
    {
        const string Text = "el cliente cuelga antes de la respuesta";
        var id = await app.AddTicketAsync(Text);
        var hold = app.Model.Hold(Text);
        using var gone = new CancellationTokenSource();

        var request = app.Http.PostAsJsonAsync("/process-ticket", new JsonObject { ["id"] = id.ToString() }, gone.Token);
        await hold.Arrived;
        await gone.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => request);

        // Others are served meanwhile, which gives the server the time to see that this client has gone.
        for (var n = 0; n < 10; n++)
        {
            await (await app.ProcessAsync(id)).AssertProblemAsync(409, "ticket-in-progress");
        }

        hold.Release();
        await Eventually.TrueAsync(async () => (await app.ReadTicketAsync(id)).Processed, "the ticket is processed though its client has gone");

        Assert.Single(app.Model.CallsFor(Text));
        Assert.Equal(1, Assert.Single(await ReadDecisionsAsync(id)).Attempts);
        Assert.Equal(0, await CountWorkAsync(id));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_ticket_edited_while_the_model_thinks_is_classified_by_its_new_text(bool bySweep)
    {
        var before = $"antes de la edición, barrido: {bySweep}";
        var after = $"después de la edición, barrido: {bySweep}";
        var id = await app.AddTicketAsync(before);
        var hold = app.Model.Hold(before, First);
        app.Model.On(after, Second);

        var sweep = bySweep ? app.SweepAsync() : null;
        var request = bySweep ? null : app.ProcessAsync(id);
        await hold.Arrived;
        await app.ExecuteAsync("update tickets set description = @after where id = @id", new { id, after });
        hold.Release();

        if (sweep is not null)
        {
            Assert.Equal(1, (await sweep).Labelled);
        }
        else
        {
            var answer = await (await request!).ReadJsonAsync();
            Assert.Equal(("Facturacion", "Positivo", "model"), ((string?)answer["category"], (string?)answer["sentiment"], (string?)answer["source"]));
        }

        Assert.Equal(new TicketRow(id, after, "Facturacion", "Positivo", true), await app.ReadTicketAsync(id));

        // The answer about the old text was written nowhere, and the new text has its full number of attempts.
        var decision = Assert.Single(await ReadDecisionsAsync(id));
        Assert.Equal(("Facturacion", 1, Hash(after)), (decision.Category, decision.Attempts, decision.TextSha256));
        Assert.Equal(0, await CountWorkAsync(id));
    }

    [Fact]
    public async Task A_client_whose_text_was_edited_away_while_the_model_thought_is_told_so()
    {
        const string Before = "el texto que el cliente cree";
        const string After = "el texto que hay ahora";
        var id = await app.AddTicketAsync(Before);
        var hold = app.Model.Hold(Before, First);

        var request = app.ProcessAsync(id, Before);
        await hold.Arrived;
        await app.ExecuteAsync("update tickets set description = @After where id = @id", new { id, After });
        hold.Release();

        await (await request).AssertProblemAsync(409, "description-mismatch");
        Assert.Equal(new TicketRow(id, After, null, null, false), await app.ReadTicketAsync(id));

        // Its going away costs the new text nothing: it is due at once, with attempt 1.
        Assert.Equal(1, (await app.SweepAsync()).Labelled);
        var decision = Assert.Single(await ReadDecisionsAsync(id));
        Assert.Equal((1, Hash(After)), (decision.Attempts, decision.TextSha256));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task An_edit_under_way_when_the_model_answers_is_waited_for_and_kept_from_nothing_that_it_needs(bool editorStillHasToWrite)
    {
        var before = $"antes de una edición a medias {editorStillHasToWrite}";
        var after = $"después de una edición a medias {editorStillHasToWrite}";
        var id = await app.AddTicketAsync(before);
        var hold = app.Model.Hold(before, First);
        app.Model.On(after, Second);

        var request = app.ProcessAsync(id);
        await hold.Arrived;
        await using var editor = await OpenAsync();
        await using var transaction = await editor.BeginTransactionAsync();
        const string Edit = "update tickets set description = @after where id = @id";
        await editor.ExecuteAsync(editorStillHasToWrite ? "select from tickets where id = @id for update" : Edit, new { id, after });
        hold.Release();
        await WaitUntilBlockedAsync(1);
        if (editorStillHasToWrite)
        {
            // It changes the work row too. In another order of locks the two would wait for each other, and Postgres would end one.
            await editor.ExecuteAsync(Edit, new { id, after });
        }

        await transaction.CommitAsync();

        Assert.Equal("Facturacion", (string?)(await (await request).ReadJsonAsync())["category"]);
        Assert.Equal(Hash(after), Assert.Single(await ReadDecisionsAsync(id)).TextSha256);
        Assert.DoesNotContain(LogSince(), entry => entry.Level >= LogLevel.Warning);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_failure_about_the_old_text_neither_parks_nor_delays_the_new_one(bool committedMeanwhile)
    {
        var before = $"falla por última vez {committedMeanwhile}";
        var after = $"ahora bien escrito {committedMeanwhile}";
        var id = await app.AddTicketAsync(before);
        await app.ExecuteAsync(
            "insert into ticket_work (ticket_id, attempts, due_at, last_error) values (@id, 4, now(), 'UpstreamInvalid: invalid')", new { id });
        var hold = app.Model.Hold(before, ModelStub.Json(504, new JsonObject()));
        app.Model.On(after, Second);

        var request = app.ProcessAsync(id);
        await hold.Arrived;
        await using var editor = await OpenAsync();
        await using var transaction = await editor.BeginTransactionAsync();
        await editor.ExecuteAsync("update tickets set description = @after where id = @id", new { id, after });
        if (committedMeanwhile)
        {
            hold.Release();
            await WaitUntilBlockedAsync(1);
            await transaction.CommitAsync();
        }
        else
        {
            await transaction.CommitAsync();
            hold.Release();
        }

        var answer = await (await request).ReadJsonAsync();
        Assert.Equal("Facturacion", (string?)answer["category"]);
        Assert.Equal(new TicketRow(id, after, "Facturacion", "Positivo", true), await app.ReadTicketAsync(id));
        Assert.Equal((1, Hash(after)), (await ReadDecisionsAsync(id)).Select(decision => (decision.Attempts, decision.TextSha256)).Single());
    }

    [Fact]
    public async Task A_processed_ticket_that_is_edited_loses_its_labels_at_once_and_gets_those_of_its_new_text()
    {
        const string Before = "la factura está mal";
        const string After = "la factura está bien, gracias";
        app.Model.On(Before, First);
        app.Model.On(After, Second);
        var id = await app.AddTicketAsync(Before);
        await app.ProcessAsync(id);

        await app.ExecuteAsync("update tickets set description = @After where id = @id", new { id, After });
        Assert.Equal(new TicketRow(id, After, null, null, false), await app.ReadTicketAsync(id));
        Assert.Equal(1, (await app.SweepAsync()).Labelled);

        Assert.Equal(new TicketRow(id, After, "Facturacion", "Positivo", true), await app.ReadTicketAsync(id));
        Assert.Equal([Hash(Before), Hash(After)], (await ReadDecisionsAsync(id)).Select(decision => decision.TextSha256));

        // An update that leaves the text as it is leaves the labels too.
        var row = await app.ReadTicketAsync(id);
        await app.ExecuteAsync("update tickets set description = description, created_at = now() where id = @id", new { id });
        Assert.Equal(row, await app.ReadTicketAsync(id));
    }

    [Fact]
    public async Task A_persons_correction_is_kept_with_an_edit_after_the_classification_and_without_one_while_the_model_thinks()
    {
        const string Before = "texto que una persona va a corregir";
        const string After = "texto corregido por una persona";
        var id = await app.AddTicketAsync(Before);
        await app.ProcessAsync(id);
        await app.ExecuteAsync("update tickets set description = @After, category = 'Comercial', sentiment = 'Positivo' where id = @id", new { id, After });
        var corrected = new TicketRow(id, After, "Comercial", "Positivo", true);
        Assert.Equal(corrected, await app.ReadTicketAsync(id));
        Assert.Equal("stored", (string?)(await (await app.ProcessAsync(id)).ReadJsonAsync())["source"]);
        Assert.Equal(0, (await app.SweepAsync()).Claimed);
        Assert.Equal(corrected, await app.ReadTicketAsync(id));
        Assert.Empty(app.Model.CallsFor(After));

        const string Meanwhile = "una persona lo etiqueta mientras el modelo piensa";
        const string Edited = "una persona lo etiqueta y lo edita mientras el modelo piensa";
        foreach (var text in new[] { Meanwhile, Edited })
        {
            var other = await app.AddTicketAsync(text);
            var hold = app.Model.Hold(text, First);
            var request = app.ProcessAsync(other);
            await hold.Arrived;
            await app.ExecuteAsync(
                "update tickets set description = @text, category = 'Comercial', sentiment = 'Positivo', processed = true where id = @other",
                new { other, text = text == Edited ? text + "!" : text });
            hold.Release();

            var answer = await (await request).ReadJsonAsync();
            Assert.Equal(("Comercial", "Positivo", "stored"), ((string?)answer["category"], (string?)answer["sentiment"], (string?)answer["source"]));
            Assert.Empty(await ReadDecisionsAsync(other));
            Assert.Single(app.Model.CallsFor(text));
            await app.SweepAsync();
            Assert.Equal(0, await CountWorkAsync(other));
        }
    }

    [Fact]
    public async Task A_persons_correction_made_while_a_forced_decision_is_thought_over_is_kept()
    {
        const string Text = "una persona corrige mientras se vuelve a pensar";
        var id = await app.AddTicketAsync(Text);
        await app.ProcessAsync(id);
        var hold = app.Model.Hold(Text, First);

        var forced = app.ProcessAsync(id, query: "?force=true");
        await hold.Arrived;
        await app.ExecuteAsync("update tickets set category = 'Comercial' where id = @id", new { id });
        hold.Release();

        Assert.Equal(
            $$"""{"id":"{{id}}","category":"Comercial","sentiment":"Negativo","processed":true,"source":"stored","model":null,"confidence":null}""",
            (await (await forced).ReadJsonAsync()).ToJsonString());
        Assert.Equal(new TicketRow(id, Text, "Comercial", "Negativo", true), await app.ReadTicketAsync(id));
        Assert.Single(await ReadDecisionsAsync(id));
        Assert.Equal(0, await CountWorkAsync(id));
        Assert.Equal(2, app.Model.CallsFor(Text).Count);
    }

    [Fact]
    public async Task A_lease_lasts_its_whole_length_from_when_it_was_got_however_long_the_claim_had_waited()
    {
        const string Text = "se espera mucho por este ticket";
        var id = await app.AddTicketAsync(Text);
        var hold = app.Model.Hold(Text);
        await using var other = await OpenAsync();
        await using var transaction = await other.BeginTransactionAsync();
        await other.ExecuteAsync("select from tickets where id = @id for update", new { id });
        var request = app.ProcessAsync(id);
        await WaitUntilBlockedAsync(1);

        // now() is when a statement began, and this one began to wait before this moment.
        var lease = app.Services.GetRequiredService<IOptions<TriageOptions>>().Value.Lease;
        var earliest = await other.QuerySingleAsync<DateTime>("select clock_timestamp() + @lease", new { lease });
        await transaction.RollbackAsync();
        await hold.Arrived;

        Assert.True(await app.QuerySingleAsync<DateTime>("select due_at from ticket_work where ticket_id = @id", new { id }) >= earliest);
        hold.Release();
        Assert.Equal(HttpStatusCode.OK, (await request).StatusCode);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_ticket_deleted_while_the_model_thinks_leaves_nothing_behind(bool committedMeanwhile)
    {
        var text = $"borrado mientras tanto {committedMeanwhile}";
        var id = await app.AddTicketAsync(text);
        var hold = app.Model.Hold(text);

        var request = app.ProcessAsync(id);
        await hold.Arrived;
        await using var other = await OpenAsync();
        await using var transaction = await other.BeginTransactionAsync();
        await other.ExecuteAsync("delete from tickets where id = @id", new { id });
        if (committedMeanwhile)
        {
            hold.Release();
            await WaitUntilBlockedAsync(1);
            await transaction.CommitAsync();
        }
        else
        {
            await transaction.CommitAsync();
            hold.Release();
        }

        await (await request).AssertProblemAsync(404, "ticket-not-found");
        Assert.Empty(await ReadDecisionsAsync(id));
        Assert.Equal(0, await CountWorkAsync(id));
        Assert.DoesNotContain(LogSince(), entry => entry.Level >= LogLevel.Warning);
    }

    [Fact]
    public async Task A_forced_decision_replaces_the_labels_by_one_update_and_the_old_decision_stays()
    {
        const string Text = "otra vez, por favor";
        app.Model.On(Text, ModelStub.Sequence(First, Second));
        var id = await app.AddTicketAsync(Text);
        await app.ProcessAsync(id);

        var answer = await (await app.ProcessAsync(id, query: "?force=true")).ReadJsonAsync();

        Assert.Equal(("Facturacion", "model"), ((string?)answer["category"], (string?)answer["source"]));
        Assert.Equal(["Otro", "Facturacion"], (await ReadDecisionsAsync(id)).Select(decision => decision.Category));
        Assert.Equal(0, await CountWorkAsync(id));

        // While it is thought over again, the old labels stand, and others see them.
        var hold = app.Model.Hold(Text, First);
        var forced = app.ProcessAsync(id, query: "?force=true");
        await hold.Arrived;
        Assert.Equal("Facturacion", (string?)(await (await app.ProcessAsync(id)).ReadJsonAsync())["category"]);
        await (await app.ProcessAsync(id, query: "?force=true")).AssertProblemAsync(409, "ticket-in-progress");
        Assert.Equal(0, (await app.SweepAsync()).Claimed);
        hold.Release();
        Assert.Equal("Otro", (string?)(await (await forced).ReadJsonAsync())["category"]);
        Assert.Equal(3, app.Model.CallsFor(Text).Count);
    }

    [Fact]
    public async Task Requests_sweeps_edits_and_deletions_all_at_once_never_leave_a_label_on_another_text()
    {
        const int Tickets = 60;
        string[] categories = ["Tecnico", "Facturacion", "Comercial", "Otro"];
        await using var other = await TicketApp.StartAsync();
        await TicketAudit.InstallAsync(other);

        // The label says which text it was given to.
        other.Model.Default = (call, context) => ModelStub.Labels(CategoryOf(call.Ticket), "Neutral")(call, context);
        var ids = await other.QueryAsync<Guid>(
            "insert into tickets (description) select format('revuelto %s.0', n) from generate_series(1, @Tickets) as n returning id", new { Tickets });
        var random = new Random(20261120);
        var edits = Enumerable.Range(1, 150).Select(n => (Ids: new[] { ids[random.Next(Tickets)], ids[random.Next(Tickets)] }.Distinct().ToArray(), Text: $"revuelto {n}.{n % 4}")).ToList();
        var requests = Enumerable.Range(1, 200).Select(_ => ids[random.Next(Tickets)]).ToList();
        var statuses = new ConcurrentBag<HttpStatusCode>();

        // Two editors: one edits two tickets in one transaction, in any order; the other deletes now and then.
        await Task.WhenAll(
            EditAsync(),
            DeleteAsync(),
            Parallel.ForEachAsync(
                requests,
                new ParallelOptions { MaxDegreeOfParallelism = 8 },
                async (id, _) => statuses.Add((await other.ProcessAsync(id)).StatusCode)),
            SweepAsync(),
            SweepAsync());
        await other.LetTimePassAsync();
        await other.SweepAsync();

        Assert.Empty(statuses.Except([HttpStatusCode.OK, HttpStatusCode.Conflict, HttpStatusCode.NotFound]));
        Assert.Equal(Tickets - 6, await other.QuerySingleAsync<int>("select count(*) from tickets where processed"));
        Assert.Equal(0, await other.QuerySingleAsync<int>("select count(*) from tickets where not processed"));
        Assert.Equal(0, await other.QuerySingleAsync<int>("select count(*) from ticket_work"));
        var changes = await TicketAudit.ReadAsync(other);
        Assert.All(changes.Where(change => change.Processed == true), change => Assert.Equal(CategoryOf(change.Text!), change.Category));

        // Each decision made exactly one row processed, and no decision was lost on the way.
        Assert.Equal(
            changes.Count(change => change is { WasProcessed: false, Processed: true }),
            await other.QuerySingleAsync<int>("select count(*) from ticket_decisions"));
        Assert.DoesNotContain(other.Log, entry => entry.Level >= LogLevel.Warning);
        Assert.Equal(0, await other.QuerySingleAsync<long>("select deadlocks from pg_stat_database where datname = current_database()"));

        string CategoryOf(string text) => categories[text[^1] - '0'];

        async Task EditAsync()
        {
            await using var connection = new NpgsqlConnection(other.ConnectionString);
            await connection.OpenAsync();
            foreach (var (tickets, text) in edits)
            {
                await using var transaction = await connection.BeginTransactionAsync();
                foreach (var id in tickets)
                {
                    await connection.ExecuteAsync("update tickets set description = @text where id = @id", new { id, text });
                }

                await transaction.CommitAsync();
            }
        }

        async Task DeleteAsync()
        {
            for (var n = 0; n < 6; n++)
            {
                await other.ExecuteAsync("delete from tickets where id = @id", new { id = ids[n * 10] });
            }
        }

        async Task SweepAsync()
        {
            for (var n = 0; n < 5; n++)
            {
                await other.SweepAsync();
            }
        }
    }

    [Fact]
    public async Task Two_hundred_requests_on_four_connections_hold_none_of_them_while_the_model_thinks()
    {
        await using var small = await TicketApp.StartAsync(
            ("ConnectionStrings__Tickets", "Maximum Pool Size=4;Timeout=30"), ("Model__AttemptTimeout", "00:00:40"), ("Model__TotalTimeout", "00:00:50"));
        var hold = small.Model.HoldAll();
        var ids = await small.QueryAsync<Guid>("insert into tickets (description) select format('a la vez %s', n) from generate_series(1, 200) as n returning id");

        var requests = ids.Select(id => small.ProcessAsync(id)).ToList();
        await hold.WaitForAsync(200);

        var connections = await small.QueryAsync<string>(
            "select state from pg_stat_activity where datname = current_database() and application_name = 'ticket-functions'");
        Assert.InRange(connections.Count, 1, 4);
        Assert.All(connections, state => Assert.Equal("idle", state));
        hold.Release();
        Assert.All(await Task.WhenAll(requests), answer => Assert.Equal(HttpStatusCode.OK, answer.StatusCode));
        Assert.Equal(200, await small.QuerySingleAsync<int>("select count(*) from tickets join ticket_decisions on ticket_id = tickets.id where processed"));
        Assert.Equal(200, small.Model.Calls.Count);
    }

    [Fact]
    public async Task When_all_connections_are_taken_others_wait_a_bounded_time_and_then_are_told_to_come_back()
    {
        await using var small = await TicketApp.StartAsync(("ConnectionStrings__Tickets", "Maximum Pool Size=1;Timeout=1"));
        await using var other = new NpgsqlConnection(small.ConnectionString);
        var (locked, free, transaction) = await AddLockedAndFreeAsync(small, other);

        var blocked = small.ProcessAsync(locked);
        await WaitUntilBlockedAsync(1, small);
        var refused = await small.ProcessAsync(free);
        await refused.AssertProblemAsync(503, "storage-unavailable");
        Assert.NotNull(refused.Headers.RetryAfter);

        await transaction.RollbackAsync();
        Assert.Equal(HttpStatusCode.OK, (await blocked).StatusCode);
        Assert.Equal(HttpStatusCode.OK, (await small.ProcessAsync(free)).StatusCode);
        Assert.Equal(2, small.Model.Calls.Count);
    }

    [Fact]
    public async Task Requests_for_a_ticket_that_somebody_has_locked_leave_connections_for_the_others()
    {
        await using var small = await TicketApp.StartAsync(("ConnectionStrings__Tickets", "Maximum Pool Size=4;Timeout=1"));
        await using var other = new NpgsqlConnection(small.ConnectionString);
        var (locked, free, transaction) = await AddLockedAndFreeAsync(small, other);

        var blocked = Enumerable.Range(0, 8).Select(_ => small.ProcessAsync(locked)).ToList();
        await WaitUntilBlockedAsync(1, small);
        Assert.Equal(HttpStatusCode.OK, (await small.ProcessAsync(free)).StatusCode);

        await transaction.RollbackAsync();
        Assert.All(await Task.WhenAll(blocked), answer => Assert.True(answer.StatusCode is HttpStatusCode.OK or HttpStatusCode.Conflict, $"{answer.StatusCode}"));
    }

    /// <returns>A ticket whose row <paramref name="other"/> has locked, one that nobody has, and the transaction that holds the lock.</returns>
    private static async Task<(Guid Locked, Guid Free, NpgsqlTransaction Lock)> AddLockedAndFreeAsync(TicketApp app, NpgsqlConnection other)
    {
        var locked = await app.AddTicketAsync("alguien lo tiene bloqueado");
        var free = await app.AddTicketAsync("nadie lo tiene");
        await other.OpenAsync();
        var transaction = await other.BeginTransactionAsync();
        await other.ExecuteAsync("select from tickets where id = @locked for update", new { locked });
        return (locked, free, transaction);
    }

    private static string Hash(string text) => Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(text)));

    private IEnumerable<(LogLevel Level, string Message)> LogSince() => app.Log.Skip(_logged);

    private async Task<NpgsqlConnection> OpenAsync()
    {
        var connection = new NpgsqlConnection(app.ConnectionString);
        await connection.OpenAsync();
        return connection;
    }

    /// <summary>Completes when so many statements of the app wait for a lock.</summary>
    private Task WaitUntilBlockedAsync(int statements, TicketApp? where = null) => Eventually.TrueAsync(
        async () => await (where ?? app).QuerySingleAsync<int>(
            """
            select count(*)
            from pg_stat_activity
            where datname = current_database()
              and application_name = 'ticket-functions'
              and wait_event_type = 'Lock'
            """) == statements,
        $"{statements} statements of the app wait for a lock");

    private Task<HttpResponseMessage> PostWebhookAsync(Guid id, string description) => app.Http.PostAsJsonAsync("/process-ticket", new JsonObject
    {
        ["type"] = "INSERT",
        ["schema"] = "public",
        ["table"] = "tickets",
        ["record"] = new JsonObject { ["id"] = id.ToString(), ["description"] = description, ["processed"] = false },
        ["old_record"] = null,
    });

    private Task<string> ReadWholeRowAsync(Guid id) =>
        app.QuerySingleAsync<string>("select concat(xmin, ' ', tickets) from tickets where id = @id", new { id });

    private Task<string> ReadWorkAsync(Guid id) =>
        app.QuerySingleAsync<string>("select concat(xmin, ' ', ticket_work) from ticket_work where ticket_id = @id", new { id });

    private Task<int> CountWorkAsync(Guid id) =>
        app.QuerySingleAsync<int>("select count(*) from ticket_work where ticket_id = @id", new { id });

    private Task<IReadOnlyList<DecisionRow>> ReadDecisionsAsync(Guid id) => app.QueryAsync<DecisionRow>(
        "select category, sentiment, source, attempts, encode(text_sha256, 'hex') as text_sha256 from ticket_decisions where ticket_id = @id order by ticket_decisions.id", new { id });

    private sealed record DecisionRow(string Category, string Sentiment, string Source, int Attempts, string TextSha256);
}
