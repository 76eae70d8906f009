using TicketFunctions.Tickets;

namespace TicketFunctions.Tests.Tickets;

public sealed class TicketTextTests
{
    [Theory]
    [InlineData("", "")]
    [InlineData(" \t\r\n\u00a0\u3000a b\u2028 ", "a b")]
    [InlineData("a\u0301", "á")]
    [InlineData("á", "á")]
    [InlineData("\u1112\u1161\u11ab", "한")]
    [InlineData("ﬁ①", "ﬁ①")]
    [InlineData("\ufffe a\u0301 \ufffe\uffff", "\ufffe á \ufffe\uffff")]
    public void A_text_is_normalised_to_NFC_and_trimmed_whatever_is_in_it(string text, string normalised) =>
        Assert.Equal(normalised, TicketText.Normalize(text));

    [Theory]
    [InlineData("á", " a\u0301\n", true)]
    [InlineData("a\ufffe", "a\ufffe ", true)]
    [InlineData("a", "A", false)]
    [InlineData("a", "á", false)]
    [InlineData("a b", "a  b", false)]
    [InlineData("①", "1", false)]
    [InlineData("a\u200b", "a", false)]
    public void Texts_are_the_same_when_they_are_so_normalised(string left, string right, bool same)
    {
        Assert.Equal(same, TicketText.AreSame(left, right));
        Assert.Equal(same, TicketText.AreSame(right, left));
    }

    [Theory]
    [InlineData("", false)]
    [InlineData(" \t\r\n", false)]
    [InlineData("\0\u0007\u001b", false)]
    [InlineData("\u00a0\u2003\u2028\u2029\u3000", false)]
    [InlineData("\u00ad\u200b\u200c\u200d\u200e\u2060\ufeff", false)]
    [InlineData("\u0301\u20dd\ufe0f", false)]
    [InlineData("\u115f\u1160\u3164\uffa0\u2800", false)]
    [InlineData("\U000e0041\U000e0100", false)]
    [InlineData("\ud800", true)]
    [InlineData(".", true)]
    [InlineData("\u200b1\u200b", true)]
    [InlineData("e\u0301", true)]
    [InlineData("漢", true)]
    [InlineData("ع", true)]
    [InlineData("👍🏽", true)]
    [InlineData("€", true)]
    public void A_text_is_visible_when_any_of_it_is(string text, bool visible) =>
        Assert.Equal(visible, TicketText.IsVisible(text));

    [Fact]
    public void A_long_text_is_clipped_between_characters()
    {
        var head = new string('x', TicketText.MaxLength - 1);

        Assert.Equal(head, TicketText.Clip(head));
        Assert.Equal(head + "y", TicketText.Clip(head + "y"));
        Assert.Equal(head + "y", TicketText.Clip(head + "yz"));
        Assert.Equal(head, TicketText.Clip(head + "😀"));
        Assert.Equal(head[1..] + "😀", TicketText.Clip(head[1..] + "😀z"));
    }

    [Theory]
    [InlineData("hola juan.perez@example.com", 17)]
    [InlineData("hola 4111 1111 1111 1111", 10)]
    [InlineData("hola 4111\t1111\r\n1111\t1111", 20)]
    [InlineData("hola ES91 2100 0418 4502 0005 1332", 31)]
    [InlineData("hola +34 600 123 456", 13)]
    [InlineData("hola 12345678 Z", 13)]
    [InlineData("hola adiós", 7)]
    [InlineData("hola  ", 5)]
    public void Of_a_long_text_no_half_word_or_number_is_left_that_would_not_be_masked(string end, int inside)
    {
        var head = string.Concat(Enumerable.Repeat("x ", TicketText.MaxLength / 2));

        Assert.Equal(head[inside..] + "hola", TicketText.Clip(head[inside..] + end + " y más"));
        Assert.Equal(head[4..] + "hola", TicketText.Clip(head[4..] + "hola y más"));
    }
}
