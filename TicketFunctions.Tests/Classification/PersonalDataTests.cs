using System.Globalization;
using System.Numerics;
using System.Text;
using TicketFunctions.Classification;

namespace TicketFunctions.Tests.Classification;

/// <summary>Every value is a documented sample, from a range kept for examples, or generated.</summary>
public sealed class PersonalDataTests
{
    private const int Seed = 20261121;

    private static readonly string[] Masks = ["[email]", "[iban]", "[card]", "[id]", "[phone]"];

    // The payment schemes' published test numbers.
    private static readonly string[] Cards =
    [
        "4111111111111111", "4012888888881881", "4222222222222", "5555555555554444", "5105105105105100", "2223003122003222",
        "378282246310005", "371449635398431", "30569309025904", "36227206271667", "38520000023237", "3530111333300000", "6011111111111117",
        "6200000000000005", "6759649826438453", "5066991111111118", "6062826786276634",
    ];

    // The examples of the IBAN registry.
    private static readonly string[] Ibans =
    [
        "ES9121000418450200051332", "PT50000201231234567890154", "BR1800360305000010009795493C1", "DE89370400440532013000", "GB29NWBK60161331926819",
        "FR1420041010050500013M02606", "IT60X0542811101000000123456", "NO9386011117947", "MT84MALT011000012345MTLCAST001S", "BE68539007547034",
        "NL91ABNA0417164300", "CH9300762011623852957", "AD1200012030200359100100", "IE29AIBK93115212345678", "AE070331234567890123456",
    ];

    private static readonly string[] Ids =
        ["12345678Z", "00000000T", "00000001R", "99999999R", "11111111H", "X1234567L", "Y1234567X", "Z1234567R", "X0000000T", "Y0000000Z", "Z0000000M"];

    private static readonly string[] Cpfs = ["12345678909", "52998224725", "11144477735"];

    [Theory]
    [InlineData("Mi correo es juan@example.com", "Mi correo es [email]")]
    [InlineData("Escribidme a juan.perez+soporte@correo.example.com, gracias.", "Escribidme a [email], gracias.")]
    [InlineData("juan@example.com.", "[email].")]
    [InlineData("¿juan@example.com?", "¿[email]?")]
    [InlineData("(ana_lopez-2@example.co.uk)", "([email])")]
    [InlineData("<ana@example.com>;<luis@example.org>", "<[email]>;<[email]>")]
    [InlineData("mailto:ana@example.com?subject=hola", "mailto:[email]?subject=hola")]
    [InlineData("email=ana@example.com&id=7", "email=[email]&id=7")]
    [InlineData("ANA@EXAMPLE.COM", "[email]")]
    [InlineData("Ana@Example.Com", "[email]")]
    [InlineData("o'brien@example.ie", "[email]")]
    [InlineData("'ana@example.com'", "'[email]'")]
    [InlineData("...ana@example.com...", "...[email]...")]
    [InlineData("-ana@example.com-", "-[email]-")]
    [InlineData("josé.muñoz@correo.example", "[email]")]
    [InlineData("ana@españa.example y ana@m\u00fcnchen.example", "[email] y [email]")]
    [InlineData("ana@mu\u0308nchen.example", "[email]")]
    [InlineData("ana@xn--mnchen-3ya.example", "[email]")]
    [InlineData("ana@ejemplo.xn--p1ai", "[email]")]
    [InlineData("ana@пример.рф", "[email]")]
    [InlineData("ana@例え.テスト", "[email]")]
    [InlineData("ana@example.com谢谢", "[email]谢谢")]
    [InlineData("ana@example.com电600123456", "[email]电[phone]")]
    [InlineData("ana@example.comºX1234567L", "[email]º[id]")]
    [InlineData("ana@example.com.Gracias por todo", "[email].Gracias por todo")]
    [InlineData("ana@example.com-Tel 600123456", "[email]-Tel [phone]")]
    [InlineData("ana@example.com@example.org", "[email]@example.org")]
    [InlineData("ana@b.com.c@example.com", "[email].[email]")]
    [InlineData("600123456@example.com", "[email]")]
    [InlineData("12345678Z@example.com", "[email]")]
    [InlineData("ana@600123456.example", "[email]")]
    [InlineData("📧ana@example.com📞", "📧[email]📞")]
    [InlineData("https://app.example.com/r?email=juan.perez%40example.com&x=1", "https://app.example.com/r?email=[email]&x=1")]
    [InlineData("ana%40b@example.com a%40b%40example.com", "[email] a%40[email]")]
    [InlineData("juan.perez＠example.com luis﹫example.org", "[email] [email]")]
    [InlineData("juan\u00adperez@example.com", "[email]")]
    [InlineData("juan.perez\u200b@\u2060example.\ufeffcom", "[email]")]
    [InlineData("👨\u200d👩 \u200bana@example.com\u200b", "👨\u200d👩 [email]")]
    public void An_email_address_is_masked(string text, string masked) => Assert.Equal(masked, PersonalData.Mask(text));

    [Theory]
    [InlineData("Llámame al +34 600 123 456", "Llámame al [phone]")]
    [InlineData("+34600123456", "[phone]")]
    [InlineData("Tel:+34-600-123-456.", "Tel:[phone].")]
    [InlineData("Tel+34600123456", "Tel[phone]")]
    [InlineData("(+34) 600 123 456", "[phone]")]
    [InlineData("(tel. +34 600 123 456) 12 cajas", "(tel. [phone]) 12 cajas")]
    [InlineData("+34 600 123 456 2 cajas", "[phone] 2 cajas")]
    [InlineData("+34 600 123 456. 12 cajas", "[phone]. 12 cajas")]
    [InlineData("0034 600 123 456", "[phone]")]
    [InlineData("0034600123456", "[phone]")]
    [InlineData("00 351 912 345 678", "[phone]")]
    [InlineData("600123456", "[phone]")]
    [InlineData("600 123 456", "[phone]")]
    [InlineData("600-12-34-56", "[phone]")]
    [InlineData("600.12.34.56", "[phone]")]
    [InlineData("600 12 34 56", "[phone]")]
    [InlineData("600 123456", "[phone]")]
    [InlineData("91 123 45 67", "[phone]")]
    [InlineData("91 - 123 45 67", "[phone]")]
    [InlineData("91-1234567", "[phone]")]
    [InlineData("(91) 123 45 67", "[phone]")]
    [InlineData("(976) 12 34 56", "[phone]")]
    [InlineData("Mi número es 711 234 567, gracias", "Mi número es [phone], gracias")]
    [InlineData("900\u00a0123\u00a0456", "[phone]")]
    [InlineData("900\u202f123\u202f456", "[phone]")]
    [InlineData("900\u2011123\u2011456", "[phone]")]
    [InlineData("900\u2013123\u2014456", "[phone]")]
    [InlineData("600123456/911234567", "[phone]/[phone]")]
    [InlineData("600123456,611223344", "[phone],[phone]")]
    [InlineData("600123456+34600123456", "[phone][phone]")]
    [InlineData("600123456+99912345678", "[phone][phone]")]
    [InlineData("📞600123456📞", "📞[phone]📞")]
    [InlineData("\u260e\ufe0f600123456", "\u260e\ufe0f[phone]")]
    [InlineData("nº600123456", "nº[phone]")]
    [InlineData("电话600123456。", "电话[phone]。")]
    [InlineData("28001 600 123 456", "28001 [phone]")]
    [InlineData("+52 55 1234 5678", "[phone]")]
    [InlineData("+52 1 55 1234 5678", "[phone]")]
    [InlineData("+54 9 11 1234-5678", "[phone]")]
    [InlineData("+54 (11) 1234-5678", "[phone]")]
    [InlineData("+57 300 123 4567", "[phone]")]
    [InlineData("+56 9 1234 5678", "[phone]")]
    [InlineData("+56 2 2123 4567", "[phone]")]
    [InlineData("Meu telefone é (11) 91234-5678.", "Meu telefone é [phone].")]
    [InlineData("(11)91234-5678", "[phone]")]
    [InlineData("(11) 3123-4567", "[phone]")]
    [InlineData("11 91234-5678", "[phone]")]
    [InlineData("+55 11 91234-5678", "[phone]")]
    [InlineData("+55 (11) 91234-5678", "[phone]")]
    [InlineData("912 345 678", "[phone]")]
    [InlineData("212 345 678", "[phone]")]
    [InlineData("21 234 5678", "[phone]")]
    [InlineData("+351 912 345 678", "[phone]")]
    [InlineData("Call me at (555) 123-4567 please", "Call me at [phone] please")]
    [InlineData("555-123-4567", "[phone]")]
    [InlineData("555.123.4567", "[phone]")]
    [InlineData("1-555-123-4567", "[phone]")]
    [InlineData("+1 (555) 123-4567", "[phone]")]
    [InlineData("+44 (0)20 7946 0958", "[phone]")]
    [InlineData("+44 7700 900123", "[phone]")]
    [InlineData("+999 1234 5678", "[phone]")]
    [InlineData("612\u200b345\u200b678", "[phone]")]
    public void A_phone_number_is_masked(string text, string masked) => Assert.Equal(masked, PersonalData.Mask(text));

    [Theory]
    [InlineData("612345678", "[phone]")]
    [InlineData("mi número: 612345678", "mi número: [phone]")]
    [InlineData("pedido 612345678", null)]
    [InlineData("pedido: 612345678", null)]
    [InlineData("Pedido nº 612345678", null)]
    [InlineData("mi número de pedido es el 612345678", null)]
    [InlineData("el pedido n.º 612345678", null)]
    [InlineData("order no. 612345678", null)]
    [InlineData("Ref.: 612345678", null)]
    [InlineData("REF-612345678", null)]
    [InlineData("#612345678", null)]
    [InlineData("https://example.com/order/612345678", null)]
    [InlineData("https://example.com/?id=612345678", null)]
    [InlineData("factura 612 345 678", null)]
    [InlineData("número da encomenda 912345678", null)]
    [InlineData("NIPC 980123456", null)]
    [InlineData("No llega mi pedido. 612345678", "No llega mi pedido. [phone]")]
    [InlineData("No llega mi pedido, 612345678", "No llega mi pedido, [phone]")]
    [InlineData("pedido\n612345678", "pedido\n[phone]")]
    [InlineData("Mi pedido no llega; mi teléfono es 612345678", "Mi pedido no llega; mi teléfono es [phone]")]
    [InlineData("envíen el pedido al 612345678", "envíen el pedido al [phone]")]
    [InlineData("pedido a nombre de Ana 612345678", "pedido a nombre de Ana [phone]")]
    [InlineData("pedido +34612345678", "pedido [phone]")]
    [InlineData("5512345678", null)]
    [InlineData("llámenme al 5512345678", "llámenme al [phone]")]
    [InlineData("Celular: 3001234567", "Celular: [phone]")]
    [InlineData("ligue no 11912345678", "ligue no [phone]")]
    [InlineData("tel. 4123-4567", "tel. [phone]")]
    [InlineData("4123-4567", null)]
    [InlineData("WhatsApp 55 1234 5678", "WhatsApp [phone]")]
    [InlineData("Mi telefono (móvil): 55 1234 5678", "Mi telefono (móvil): [phone]")]
    [InlineData("mi celular (5512345678)", "mi celular ([phone])")]
    [InlineData("Llamen (por el pedido) 612345678", "Llamen (por el pedido) [phone]")]
    [InlineData("55 1234 5678", null)]
    [InlineData("34612345678", null)]
    [InlineData("calle 12345678", null)]
    [InlineData("televisor 12345678", null)]
    [InlineData("912345678 €", null)]
    [InlineData("€ 912 345 678", null)]
    [InlineData("5 € 912 345 678", "5 € [phone]")]
    [InlineData("912.345.678,00", null)]
    [InlineData("600 123 456 euros", null)]
    [InlineData("quedan 812345678 bytes", null)]
    [InlineData("91.123.45.67", null)]
    [InlineData("93.412.33.44", "[phone]")]
    public void The_words_around_decide_about_digits_that_may_be_a_phone(string text, string? masked) =>
        Assert.Equal(masked ?? text, PersonalData.Mask(text));

    [Theory]
    [InlineData("Me cobraron en la 4111 1111 1111 1111 dos veces", "Me cobraron en la [card] dos veces")]
    [InlineData("4111-1111-1111-1111", "[card]")]
    [InlineData("4111\u00a01111\u202f1111\u20111111", "[card]")]
    [InlineData("4111 - 1111 - 1111 - 1111", "[card]")]
    [InlineData("3782 822463 10005", "[card]")]
    [InlineData("3056 930902 5904", "[card]")]
    [InlineData("tarjeta:4111111111111111.", "tarjeta:[card].")]
    [InlineData("4111 1111 1111 1111 12/29", "[card] 12/29")]
    [InlineData("45 4111 1111 1111 1111", "45 [card]")]
    [InlineData("600 123 4111 1111 1111 1111", "600 123 [card]")]
    [InlineData("tel 600123456 4111111111111111", "tel [phone] [card]")]
    [InlineData("Pedido 4111111111111111", "Pedido [card]")]
    [InlineData("tarjeta\t4111\t1111\t1111\t1111\t12/29", "tarjeta\t[card]\t12/29")]
    [InlineData("4111\n1111\n1111\r\n1111\n", "[card]\n")]
    [InlineData("3782\t822463\t10005", "[card]")]
    [InlineData("4111 1111 1111\u00ad1111", "[card]")]
    public void A_payment_card_is_masked(string text, string masked) => Assert.Equal(masked, PersonalData.Mask(text));

    [Theory]
    [InlineData("Mi IBAN es ES91 2100 0418 4502 0005 1332", "Mi IBAN es [iban]")]
    [InlineData("IBAN:ES9121000418450200051332.", "IBAN:[iban].")]
    [InlineData("es91-2100-0418-4502-0005-1332", "[iban]")]
    [InlineData("ES91 2100 0418 45 0200051332", "[iban]")]
    [InlineData("ES91\u00a02100\u202f0418\u00a04502\u00a00005\u00a01332", "[iban]")]
    [InlineData("GB29 nwbk 6016 1331 9268 19 gracias", "[iban] gracias")]
    [InlineData("BR18 0036 0305 0000 1000 9795 493C 1", "[iban]")]
    [InlineData("ES91 2100 0418 4502 0005 1332 600 123 456", "[iban] [phone]")]
    [InlineData("IBAN:\nES91\t2100\t0418\r\n4502\t0005\t1332\n", "IBAN:\n[iban]\n")]
    public void An_iban_is_masked(string text, string masked) => Assert.Equal(masked, PersonalData.Mask(text));

    [Theory]
    [InlineData("Mi DNI es 12345678Z", "Mi DNI es [id]")]
    [InlineData("dni 12345678z", "dni [id]")]
    [InlineData("12345678-Z", "[id]")]
    [InlineData("12.345.678-Z", "[id]")]
    [InlineData("12.345.678Z", "[id]")]
    [InlineData("12345678 Z", "[id]")]
    [InlineData("12345678\u2011Z", "[id]")]
    [InlineData("12345678Z-600123456", "[id]-[phone]")]
    [InlineData("NIE: X1234567L", "NIE: [id]")]
    [InlineData("X-1234567-L", "[id]")]
    [InlineData("x1234567l", "[id]")]
    [InlineData("Y-1.234.567-X", "[id]")]
    [InlineData("Z 1234567 R", "[id]")]
    [InlineData("O meu CPF é 123.456.789-09.", "O meu CPF é [id].")]
    [InlineData("CPF 12345678909", "CPF [id]")]
    [InlineData("123456789-09", "[id]")]
    [InlineData("111 444 777 35", "[id]")]
    [InlineData("telefone 52998224725", "telefone [id]")]
    [InlineData("612345678 12345678Z", "[phone] [id]")]
    public void A_national_id_is_masked(string text, string masked) => Assert.Equal(masked, PersonalData.Mask(text));

    [Theory]
    [InlineData("")]
    [InlineData(" \t\r\n")]
    [InlineData("No puedo entrar en mi cuenta.")]
    [InlineData("Gracias @usuario, y a @soporte.example también")]
    [InlineData("user@localhost")]
    [InlineData("user@192.168.1.10")]
    [InlineData("ana @ example.com")]
    [InlineData("ana@.com ana@example. ana@-example.com ana@example.c @ @@ a@")]
    [InlineData("...@example.com")]
    [InlineData("pedido 12345678")]
    [InlineData("Pedido núm. 2024123456")]
    [InlineData("factura 2024-001234")]
    [InlineData("factura F2024/00123")]
    [InlineData("invoice INV-2024-00012345")]
    [InlineData("order 405-1234567-1234567")]
    [InlineData("order 302-1234567-1234565")]
    [InlineData("error 500")]
    [InlineData("error 0x80070005")]
    [InlineData("ORA-00942 y HTTP 503")]
    [InlineData("1.250,00 €")]
    [InlineData("R$ 1.234.567,89")]
    [InlineData("$1,234,567.89")]
    [InlineData("son 1250 euros, 12,50 y 3.5 %")]
    [InlineData("12/03/2024")]
    [InlineData("2024-03-12T10:11:12+01:00")]
    [InlineData("20240312101112 y 1710237072123")]
    [InlineData("el 12-03-2024 a las 10:30:25")]
    [InlineData("de 9:00 a 18:00, 24/7")]
    [InlineData("192.168.1.10")]
    [InlineData("192.168.1.10:8080")]
    [InlineData("2001:db8::8a2e:370:7334")]
    [InlineData("v10.0.19045")]
    [InlineData("versión 10.0.19045.4170")]
    [InlineData("1.0.0+20240312")]
    [InlineData("+1250 puntos")]
    [InlineData("+12.345.678 €")]
    [InlineData("SN 5CG1234XYZ")]
    [InlineData("IMEI 356938035643809")]
    [InlineData("ISBN 978-84-376-0494-7")]
    [InlineData("EAN 8412345678905")]
    [InlineData("550e8400-e29b-41d4-a716-446655440000")]
    [InlineData("40.416775, -3.703790")]
    [InlineData("IMG_612345678.jpg")]
    [InlineData("abc612345678 612345678abc e\u0301612345678")]
    [InlineData("6123456789 61234567")]
    [InlineData("1-612345678 612345678-1 5.612345678")]
    [InlineData("612345678,50")]
    [InlineData("512345678")]
    [InlineData("12345678")]
    [InlineData("12345678A")]
    [InlineData("12345678 z")]
    [InlineData("12345678.Z")]
    [InlineData("123456789Z")]
    [InlineData("12345678ZA")]
    [InlineData("ES12345678Z")]
    [InlineData("1234567L")]
    [InlineData("X1234567A")]
    [InlineData("W1234567L")]
    [InlineData("y 1234567 X")]
    [InlineData("CIF B12345674")]
    [InlineData("CIF B-12345674")]
    [InlineData("NIF A58818501, P1234567D")]
    [InlineData("CNPJ 11.222.333/0001-81")]
    [InlineData("CNPJ 11222333000181")]
    [InlineData("123.456.789-00")]
    [InlineData("111.111.111-11")]
    [InlineData("00000000000")]
    [InlineData("1234.567.890-9")]
    [InlineData("4111 1111 1111 1112")]
    [InlineData("4111111111111112")]
    [InlineData("1111111111111117")]
    [InlineData("9111111111111110")]
    [InlineData("41111111111111111111")]
    [InlineData("x4111111111111111")]
    [InlineData("2024-4111-1111-1111-1111")]
    [InlineData("30 45 12 60 11 22 39")]
    [InlineData("411111\t1111\t1111\t11")]
    [InlineData("4111\n\n1111\n1111\n1111")]
    [InlineData("pedido\u00ad 12345678\u200b")]
    [InlineData("un 20%40 y 5%4")]
    [InlineData("ES91 2100 0418 4502 0005 1333")]
    [InlineData("ES91210004184502000513320")]
    [InlineData("ES9121000418450200051")]
    [InlineData("XES9121000418450200051332")]
    [InlineData("ZZ9121000418450200051332")]
    [InlineData("en 2024 pedí 12 cajas de 24 y 3 de 48")]
    [InlineData("[email] [iban] [card] [id] [phone] 4123-4567")]
    public void Anything_else_stays_and_is_not_even_copied(string text) => Assert.Same(text, PersonalData.Mask(text));

    [Fact]
    public void A_ticket_keeps_all_but_its_personal_data()
    {
        Assert.Equal(
            "Hola, soy Ana (DNI [id]).\r\nEl pedido 12345678 del 12/03/2024 (1.250,00 €) se cobró dos veces en la [card];\r\n"
            + "devuélvanlo a [iban] y avisen en [email] o al [phone].",
            PersonalData.Mask(
                "Hola, soy Ana (DNI 12345678Z).\r\nEl pedido 12345678 del 12/03/2024 (1.250,00 €) se cobró dos veces en la 5555 5555 5555 4444;\r\n"
                + "devuélvanlo a ES91 2100 0418 4502 0005 1332 y avisen en ana+pedidos@example.com o al +34 600 123 456."));
    }

    [Fact]
    public void Samples_are_masked_in_one_run_and_in_groups()
    {
        Assert.All(Cards, card => Assert.Equal(("[card]", "[card]"), (PersonalData.Mask(card), PersonalData.Mask(Group(card)))));
        Assert.All(Ibans, iban => Assert.Equal(("[iban]", "[iban]"), (PersonalData.Mask(iban), PersonalData.Mask(Group(iban)))));
        Assert.All(Ids, id => Assert.Equal(("[id]", "[id]"), (PersonalData.Mask(id), PersonalData.Mask(id.ToLowerInvariant()))));
        Assert.All(Cpfs, cpf => Assert.Equal(("[id]", "[id]"), (PersonalData.Mask(cpf), PersonalData.Mask(Punctuate(cpf)))));
    }

    [Fact]
    public void A_sample_with_another_digit_is_not_what_it_was()
    {
        Assert.All(Cards.Concat(Cards.Select(Group)).SelectMany(ChangeDigits), card => Assert.DoesNotContain("[card]", PersonalData.Mask(card)));
        Assert.All(Ibans.Concat(Ibans.Select(Group)).SelectMany(ChangeDigits), iban => Assert.DoesNotContain("[iban]", PersonalData.Mask(iban)));
        Assert.All(Ids.SelectMany(ChangeDigits), id => Assert.Same(id, PersonalData.Mask(id)));

        // The one check that some errors pass: where the remainder is 10 the digit is 0.
        Assert.All(
            Cpfs.SelectMany(ChangeDigits).Where(cpf => cpf[9..] != CpfDigits(cpf[..9])),
            cpf => Assert.Equal((cpf, Punctuate(cpf)), (PersonalData.Mask(cpf), PersonalData.Mask(Punctuate(cpf)))));
    }

    [Fact]
    public void Each_number_has_one_check()
    {
        var random = new Random(Seed);
        for (var i = 0; i < 200; i++)
        {
            var dni = RandomDigits(random, 8);
            Assert.Equal([Dni(dni)], Letters(dni).Where(id => PersonalData.Mask(id) == "[id]"));

            var nie = "XYZ"[i % 3] + RandomDigits(random, 7);
            Assert.Equal([Nie(nie)], Letters(nie).Where(id => PersonalData.Mask(id) == "[id]"));

            var cpf = RandomDigits(random, 9);
            Assert.Equal([cpf + CpfDigits(cpf)], Enumerable.Range(0, 100).Select(check => $"{cpf}{check:00}").Where(id => PersonalData.Mask(id) == "[id]"));

            var card = "4" + RandomDigits(random, 14);
            Assert.Equal([Card(card)], Enumerable.Range(0, 10).Select(check => $"{card}{check}").Where(number => PersonalData.Mask(number) == "[card]"));

            // 00, 01 and 99 leave the same remainder as 97, 98 and 02, and no bank gives them.
            var bban = RandomDigits(random, 20);
            Assert.Equal(
                [Iban("ES", bban)],
                Enumerable.Range(2, 97).Select(check => $"ES{check:00}{bban}").Where(number => PersonalData.Mask(number) == "[iban]"));
        }

        static IEnumerable<string> Letters(string digits) => Enumerable.Range('A', 26).Select(letter => digits + (char)letter);
    }

    [Fact]
    public void Whatever_is_put_between_comes_out_as_it_went_in()
    {
        string[] rests =
        [
            " hola, ", "\r\n", " — ", "; pedido 12345678; ", " 🙂 ", " \ud800 ", " \udc00, ", "\0", " 1.250,00 € ", " (12/03/2024) ", "\t", " ñandú ", " \ufffe ",
            " e\u0301l ", "\u00a0y\u00a0", " | ", " \"", "\" ", " v10.0.19045, ",
        ];
        var random = new Random(Seed);
        for (var i = 0; i < 2000; i++)
        {
            var text = new StringBuilder();
            var masked = new StringBuilder();
            for (var parts = random.Next(1, 8); parts > 0; parts--)
            {
                var rest = rests[random.Next(rests.Length)];
                var (value, mask) = Make(random);
                text.Append(rest).Append(value);
                masked.Append(rest).Append(mask);
            }

            text.Append(" fin");
            masked.Append(" fin");
            Assert.Equal(masked.ToString(), PersonalData.Mask(text.ToString()));
        }
    }

    [Fact]
    public void Masking_twice_is_masking_once_and_the_rest_keeps_its_order()
    {
        string[] pieces =
        [
            "1", "9", "12", "34", "60", "91", "00", "123", "600", "555", "4111", "1111", "0034", "123456", "1234567", "12345678", "600123456", "11", "91234", "5678",
            "4111111111111111", "12345678909", "ES91", "2100 0418 4502 0005 1332", "ES9121000418450200051332", "NO9386011117947", "X1234567L", "X", "Z", "L", "y",
            "12345678Z", "@", "ana@example.com", "example", ".com", ".co", "xn--", "a", "_", "º", "ana", "tel", "al", "pedido", "id", "phone", "n", " ", " ", " ", " ", "-",
            "-", ".", ".", ",", "/", "+", "+34", "(", ")", "(11)", "[", "]", "#", ":", "€", " €", "eur", "kb", "\u00a0", "\u2011", " - ", "\n", "\0", "\ud83d", "\ude42", "e\u0301", "\ufe0f", "电",
            "\t", "\r\n", "%40", "＠", "\u00ad", "\u200b",
        ];
        var random = new Random(Seed);
        var changed = 0;
        for (var i = 0; i < 60_000; i++)
        {
            var text = string.Concat(Enumerable.Range(0, random.Next(1, 14)).Select(_ => pieces[random.Next(pieces.Length)]));
            var masked = PersonalData.Mask(text);
            Assert.True(ReferenceEquals(masked, PersonalData.Mask(masked)), text);
            Assert.True(masked != text || ReferenceEquals(masked, text), text);
            Assert.True(IsCutFrom(masked, masked == text ? text : string.Concat(text.Split('\u00ad', '\u200b'))), text);
            changed += masked == text ? 0 : 1;
        }

        Assert.InRange(changed, 10_000, 50_000);
    }

    [Fact]
    public void No_string_is_refused()
    {
        for (var c = 0; c <= char.MaxValue; c++)
        {
            var text = $"{(char)c}@{(char)c}.{(char)c}{(char)c}+{(char)c}({(char)c}6{(char)c}00123456{(char)c}";
            Assert.Equal(PersonalData.Mask(text), PersonalData.Mask(PersonalData.Mask(text)));
        }

        // Each sample cut short at every place.
        Assert.All(
            Cards.Concat(Ibans).Select(Group).Concat(Ids).Concat(["ana@example.com", "a@b.xn--", "+44 (0)20 7946 0958", "(11) 91234-5678", "(+34", "0034 600 123 456", "pedido n.º 612345678 €"]),
            sample => Assert.All(Enumerable.Range(0, sample.Length), length =>
            {
                Assert.NotNull(PersonalData.Mask(sample[..length]));
                Assert.NotNull(PersonalData.Mask(sample[length..]));
            }));
    }

    /// <summary>Quadratic work on these would be some 10¹⁰ steps each, and exponential work would never end.</summary>
    [Theory]
    [InlineData("a", "a")]
    [InlineData("1", "1")]
    [InlineData("1 ", "1 ")]
    [InlineData("1-", "1-")]
    [InlineData("11.", "11.")]
    [InlineData("123 ", "123 ")]
    [InlineData("@", "@")]
    [InlineData("a@", "a@")]
    [InlineData("a.", "a.")]
    [InlineData("a.b@", "a.b@")]
    [InlineData("a@b.c@", "a@b.c@")]
    [InlineData("@a.", "@a.")]
    [InlineData("a@-.", "a@-.")]
    [InlineData("a%40", "a%40")]
    [InlineData("%40%", "%40%")]
    [InlineData("4111\t", "4111\t")]
    [InlineData("ES91\r\n", "ES91\r\n")]
    [InlineData("....", "....")]
    [InlineData("+", "+")]
    [InlineData("+1", "+1")]
    [InlineData("(", "(")]
    [InlineData("(11)", "(11)")]
    [InlineData("(+34 ", "(+34 ")]
    [InlineData("ES91 ", "ES91 ")]
    [InlineData("ES91", "ES91")]
    [InlineData("X-", "X-")]
    [InlineData("pedido 61234567 ", "pedido 61234567 ")]
    [InlineData("n de el ", "n de el ")]
    [InlineData("4111 1111 1111 1112 ", "4111 1111 1111 1112 ")]
    [InlineData("\ud800", "\ud800")]
    [InlineData("\0", "\0")]
    [InlineData("600123456 ", "[phone] ")]
    [InlineData("a@b.co ", "[email] ")]
    [InlineData("4111111111111111 ", "[card] ")]
    [InlineData("12345678Z ", "[id] ")]
    [InlineData("ES9121000418450200051332 ", "[iban] ")]
    public void A_hostile_text_of_200_000_characters_is_read_to_its_end(string unit, string masked)
    {
        var count = 200_000 / unit.Length;

        Assert.Equal(Repeat(masked), PersonalData.Mask(Repeat(unit)));
        Assert.Equal(Repeat(masked) + "; [email]", PersonalData.Mask(Repeat(unit) + "; ana@example.com"));

        string Repeat(string text) => new StringBuilder(text.Length * count).Insert(0, text, count).ToString();
    }

    private static (string Value, string Mask) Make(Random random)
    {
        switch (random.Next(8))
        {
            case 0:
                return ($"{RandomLetters(random)}.{RandomLetters(random)}+{random.Next(100)}@{RandomLetters(random)}.example", "[email]");
            case 1:
                var iban = random.Next(3) switch
                {
                    0 => Iban("ES", RandomDigits(random, 20)),
                    1 => Iban("BR", RandomDigits(random, 23) + "C1"),
                    _ => Iban("GB", "WEST" + RandomDigits(random, 14)),
                };
                return (random.Next(2) == 0 ? iban : Group(iban), "[iban]");
            case 2:
                var card = Card((random.Next(3) switch { 0 => "4", 1 => "51", _ => "62" }).PadRight(2, '0') + RandomDigits(random, 13));
                return (random.Next(2) == 0 ? card : Group(card), "[card]");
            case 3:
                return (Dni(RandomDigits(random, 8)), "[id]");
            case 4:
                return (Nie("XYZ"[random.Next(3)] + RandomDigits(random, 7)), "[id]");
            case 5:
                var root = RandomDigits(random, 9);
                return (Punctuate(root + CpfDigits(root)), "[id]");
            case 6:
                return ($"+34 6{RandomDigits(random, 2)} {RandomDigits(random, 3)} {RandomDigits(random, 3)}", "[phone]");
            default:
                return ($"{random.Next(6, 10)}{RandomDigits(random, 2)}-{RandomDigits(random, 2)}-{RandomDigits(random, 2)}-{RandomDigits(random, 2)}", "[phone]");
        }
    }

    private static string RandomDigits(Random random, int length) => new(random.GetItems("0123456789".AsSpan(), length));

    private static string RandomLetters(Random random) => new(random.GetItems("abcxyzñé".AsSpan(), random.Next(1, 9)));

    private static string Dni(string digits) => digits + "TRWAGMYFPDXBNJZSQVHLCKE"[int.Parse(digits, CultureInfo.InvariantCulture) % 23];

    private static string Nie(string number) => number + Dni("XYZ".IndexOf(number[0], StringComparison.Ordinal) + number[1..])[^1..];

    private static string Iban(string country, string bban)
    {
        var digits = string.Concat((bban + country + "00").Select(c => char.IsLetter(c) ? (c - 'A' + 10).ToString(CultureInfo.InvariantCulture) : c.ToString()));
        return $"{country}{98 - (int)(BigInteger.Parse(digits, CultureInfo.InvariantCulture) % 97):00}{bban}";
    }

    private static string Card(string digits)
    {
        var sum = digits.Reverse().Select((c, i) => (c - '0') * (i % 2 == 0 ? 2 : 1)).Sum(product => product > 9 ? product - 9 : product);
        return digits + ((10 - (sum % 10)) % 10);
    }

    private static string CpfDigits(string root)
    {
        var first = Digit(root);
        return $"{first}{Digit(root + first)}";

        static int Digit(string digits)
        {
            var remainder = digits.Reverse().Select((c, i) => (c - '0') * (i + 2)).Sum() % 11;
            return remainder < 2 ? 0 : 11 - remainder;
        }
    }

    private static string Group(string number) => string.Join(' ', number.Chunk(4).Select(group => new string(group)));

    private static string Punctuate(string cpf) => $"{cpf[..3]}.{cpf[3..6]}.{cpf[6..9]}-{cpf[9..]}";

    private static IEnumerable<string> ChangeDigits(string number) =>
        from index in Enumerable.Range(0, number.Length)
        where char.IsDigit(number[index])
        from digit in "0123456789"
        where digit != number[index]
        select number[..index] + digit + number[(index + 1)..];

    /// <summary>Whether the text has everything outside of the masks, in that order, and something for each mask.</summary>
    private static bool IsCutFrom(string masked, string text)
    {
        var rests = masked.Split(Masks, StringSplitOptions.None);
        if (!text.StartsWith(rests[0], StringComparison.Ordinal) || !text.EndsWith(rests[^1], StringComparison.Ordinal))
        {
            return false;
        }

        var at = rests[0].Length;
        foreach (var rest in rests[1..])
        {
            at = text.IndexOf(rest, Math.Min(at + 1, text.Length), StringComparison.Ordinal) + rest.Length;
            if (at < rest.Length)
            {
                return false;
            }
        }

        return true;
    }
}
