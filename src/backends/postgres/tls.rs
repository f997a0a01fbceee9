//! The stream to a server, with or without TLS: whom the client trusts, and channel binding.
//!
//! | `sslmode` | the certificate has to be | an attacker on the way can |
//! | --- | --- | --- |
//! | `allow`, `prefer` | any, or absent | read and change everything |
//! | `require` | any | pose as the server |
//! | `verify-ca` | from a trusted authority | pose as the server with another certificate of that authority |
//! | `verify-full` | from a trusted authority, and for the host's name | do nothing |
//!
//! The signature of the handshake is always verified. Without that, channel binding would prove nothing.
//! (tokio-postgres-rustls has neither the modes between `require` and `verify-full` nor texts without values.)

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use sha2::{Digest, Sha256, Sha384, Sha512};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    self, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

use super::address::{Certificates, Endpoint, ServerHost, SslMode, is_exposed};

/// What a connection runs over.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// A socket, with or without TLS.
pub(super) struct Wire {
    socket: Box<dyn Socket>,
    /// The hash of the server's certificate (`tls-server-end-point` of RFC 5929).
    end_point: Option<Vec<u8>>,
}

impl Wire {
    pub(super) fn plain(socket: Box<dyn Socket>) -> Self {
        Self { socket, end_point: None }
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

impl TlsStream for Wire {
    fn channel_binding(&self) -> ChannelBinding {
        self.end_point.clone().map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

/// Tells tokio-postgres that the handshake is done.
pub(super) struct HandshakeDone;

impl TlsConnect<Wire> for HandshakeDone {
    type Stream = Wire;
    type Error = Infallible;
    type Future = Ready<Result<Wire, Infallible>>;

    fn connect(self, stream: Wire) -> Self::Future {
        ready(Ok(stream))
    }
}

/// Why there is no TLS.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TlsFailure {
    /// The connection broke off. Another attempt may succeed.
    Broken(&'static str),
    /// The two sides do not agree, or a file cannot be used.
    Refused(String),
}

/// Makes a socket secure, as `host` and `certificates` ask for.
pub(super) async fn handshake(
    socket: Box<dyn Socket>,
    host: &ServerHost,
    certificates: &Certificates,
) -> Result<Wire, TlsFailure> {
    let connector = TlsConnector::from(Arc::new(configuration(host.mode, certificates)?));
    let stream = connector.connect(server_name(host)?, socket).await.map_err(|error| failure(&error))?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let end_point = chain.first().and_then(|certificate| end_point(certificate));
    Ok(Wire { socket: Box::new(stream), end_point })
}

fn refused(text: impl Into<String>) -> TlsFailure {
    TlsFailure::Refused(text.into())
}

fn server_name(host: &ServerHost) -> Result<ServerName<'static>, TlsFailure> {
    match &host.endpoint {
        Endpoint::Name(name) | Endpoint::Address(_, Some(name)) => {
            // A dot at the end makes a name absolute. No certificate has it.
            let name = name.strip_suffix('.').unwrap_or(name).to_owned();
            ServerName::try_from(name).map_err(|_| refused("its host name cannot be in a certificate"))
        }
        Endpoint::Address(address, None) => Ok(ServerName::from(*address)),
        Endpoint::Socket(_) => Err(refused("a socket has no TLS")),
    }
}

fn configuration(mode: SslMode, certificates: &Certificates) -> Result<ClientConfig, TlsFailure> {
    // Not the default of the process: a program that has rustls, too, may have set another one.
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|_| refused("this build has no version of TLS"))?;
    let authorities = match mode {
        SslMode::VerifyCa | SslMode::VerifyFull => Some(authorities(certificates.roots.as_deref(), &provider)?),
        _ => None,
    };
    let verifier = ModeVerifier { mode, provider, authorities };
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    let Some((certificate, key)) = &certificates.client else { return Ok(builder.with_no_client_auth()) };
    builder
        .with_client_auth_cert(read_certificates(certificate, "sslcert")?, read_key(key)?)
        .map_err(|_| refused("the key in sslkey does not belong to the certificate in sslcert"))
}

/// What checks certificates against the authorities in a file, or against those of the system.
fn authorities(file: Option<&Path>, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, TlsFailure> {
    let mut roots = RootCertStore::empty();
    match file {
        Some(file) => {
            for certificate in read_certificates(file, "sslrootcert")? {
                roots.add(certificate).map_err(|_| refused("sslrootcert has a certificate that cannot be used"))?;
            }
        }
        None => {
            // Some of the system's certificates may be too old to be read. The others count.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build().map_err(|_| {
        refused("this system has no certificates of authorities: install them (ca-certificates), or set sslrootcert")
    })
}

fn read_certificates(file: &Path, parameter: &str) -> Result<Vec<CertificateDer<'static>>, TlsFailure> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(refused(format!("{parameter} has no certificate"))),
        Ok(certificates) => Ok(certificates),
        Err(_) => Err(refused(format!("{parameter} cannot be read"))),
    }
}

fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsFailure> {
    if file.metadata().is_ok_and(|metadata| is_exposed(&metadata)) {
        return Err(refused("others may read sslkey: set its mode to 600"));
    }
    PrivateKeyDer::from_pem_file(file).map_err(|_| refused("sslkey cannot be read, or has a password"))
}

/// Checks the server's certificate as far as the mode asks for it.
#[derive(Debug)]
struct ModeVerifier {
    mode: SslMode,
    provider: Arc<CryptoProvider>,
    authorities: Option<Arc<WebPkiServerVerifier>>,
}

impl ServerCertVerifier for ModeVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(authorities) = &self.authorities else { return Ok(ServerCertVerified::assertion()) };
        match authorities.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            // The name is checked last.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.mode == SslMode::VerifyCa => Ok(ServerCertVerified::assertion()),
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms).map_err(of_signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms).map_err(of_signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What rustls says about a signature of the handshake, apart from that of a certificate.
const WRONG_KEY: &str = "the server does not have the key of its certificate";

fn of_signature(error: rustls::Error) -> rustls::Error {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::BadSignature) => {
            rustls::Error::General(WRONG_KEY.to_owned())
        }
        error => error,
    }
}

/// What [`is_rejected`] means.
pub(super) const REJECTED: &str = "the server rejected the handshake, or the client's certificate";

/// Did the server reject the handshake after its end? With TLS 1.3 it checks the client's certificate then.
pub(super) fn is_rejected(error: &io::Error) -> bool {
    let source = error.get_ref().and_then(|source| source.downcast_ref::<rustls::Error>());
    matches!(source, Some(rustls::Error::AlertReceived(_)))
}

/// Why a handshake failed, in our words: rustls repeats names of the certificate.
fn failure(error: &io::Error) -> TlsFailure {
    let source = error.get_ref().and_then(|source| source.downcast_ref::<rustls::Error>());
    let Some(error) = source else {
        return TlsFailure::Broken("the server closed the connection during the handshake");
    };
    refused(match error {
        rustls::Error::InvalidCertificate(error) => of_certificate(error),
        rustls::Error::AlertReceived(_) => REJECTED,
        rustls::Error::General(text) if text == WRONG_KEY => WRONG_KEY,
        rustls::Error::PeerIncompatible(_) => "the server has no version or cipher of TLS that is still safe",
        rustls::Error::InvalidMessage(_) => "the server sent something that is not TLS",
        _ => "the handshake failed",
    })
}

fn of_certificate(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "its certificate has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet, or the clock of this machine is wrong"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "its certificate is for another host"
        }
        // A wrong signature: the authority has only the name of one that is trusted.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate is from an authority that is not trusted"
        }
        CertificateError::Revoked => "its certificate was revoked",
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "its certificate is not one of a server"
        }
        // webpki rejects an authority's certificate as a server's (RFC 5280), and version 1.
        CertificateError::Other(_) => "its certificate is that of an authority, or has an old form (not version 3)",
        _ => "its certificate cannot be used",
    }
}

/// The hash of a certificate for channel binding (RFC 5929, section 4.1): by the hash function of its signature, or by
/// SHA-256 instead of MD5 and SHA-1. `None` if the signature has no single hash function.
fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01]; // 1.2.840.113549.1.1
    const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04]; // 1.2.840.10045.4
    let oid = signature_algorithm(certificate)?;
    let hash = match (oid.strip_prefix(RSA), oid.strip_prefix(ECDSA)) {
        // MD5, SHA-1 and SHA-256.
        (Some([4 | 5 | 11]), _) | (_, Some([1] | [3, 2])) => Sha256::digest(certificate).to_vec(),
        (Some([12]), _) | (_, Some([3, 3])) => Sha384::digest(certificate).to_vec(),
        (Some([13]), _) | (_, Some([3, 4])) => Sha512::digest(certificate).to_vec(),
        _ => return None,
    };
    Some(hash)
}

/// The object identifier of the signature's algorithm: `Certificate ::= SEQUENCE { tbsCertificate SEQUENCE,
/// signatureAlgorithm SEQUENCE { OBJECT IDENTIFIER, … }, … }` (RFC 5280, section 4.1).
fn signature_algorithm(certificate: &[u8]) -> Option<&[u8]> {
    const SEQUENCE: u8 = 0x30;
    const OBJECT_IDENTIFIER: u8 = 0x06;
    let (contents, _) = element(SEQUENCE, certificate)?;
    let (_, after) = element(SEQUENCE, contents)?;
    let (algorithm, _) = element(SEQUENCE, after)?;
    Some(element(OBJECT_IDENTIFIER, algorithm)?.0)
}

/// The contents of the DER element with this tag, and what follows it.
fn element(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = bytes.strip_prefix(&[tag])?.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (digits, rest) =
            rest.split_at_checked(usize::from(first & 0x7f)).filter(|(digits, _)| digits.len() <= 4)?;
        (digits.iter().fold(0, |length, &digit| length << 8 | usize::from(digit)), rest)
    };
    rest.split_at_checked(length)
}
