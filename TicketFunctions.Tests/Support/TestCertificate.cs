using System.Net;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;

namespace TicketFunctions.Tests.Support;

/// <summary>A certificate for this machine that nobody else has signed. On Linux a process trusts it by <c>SSL_CERT_FILE</c>.</summary>
public static class TestCertificate
{
    /// <param name="file">Gets what a process is to be told to trust.</param>
    public static async Task<X509Certificate2> CreateAsync(string file)
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var name = new SubjectAlternativeNameBuilder();
        name.AddIpAddress(IPAddress.Loopback);
        var request = new CertificateRequest("CN=model", key, HashAlgorithmName.SHA256);
        request.CertificateExtensions.Add(name.Build());
        var certificate = request.CreateSelfSigned(DateTimeOffset.UtcNow.AddDays(-1), DateTimeOffset.UtcNow.AddDays(1));
        await File.WriteAllTextAsync(file, certificate.ExportCertificatePem());
        return certificate;
    }
}
