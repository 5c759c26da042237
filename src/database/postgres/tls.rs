//! TLS as libpq does it: `require` encrypts and believes any certificate unless a root certificate
//! is at hand, `verify-ca` wants one that the root signed, `verify-full` also the right name.

use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore,
    SignatureScheme, StreamOwned,
};

use super::dsn::Dsn;

/// Encrypts a connection.
pub fn wrap(
    socket: TcpStream,
    dsn: &Dsn,
) -> Result<StreamOwned<ClientConnection, TcpStream>, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS: {error}"))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier(dsn, provider)?));
    let config = match dsn.option("sslcert") {
        "" => builder.with_no_client_auth(),
        path => {
            let chain = certificates(Path::new(path))?;
            let key = PrivateKeyDer::from_pem_file(dsn.option("sslkey"))
                .map_err(|error| format!("sslkey {}: {error}", dsn.option("sslkey")))?;
            builder.with_client_auth_cert(chain, key).map_err(|e| format!("sslcert: {e}"))?
        }
    };
    let name = ServerName::try_from(dsn.host_name().to_owned())
        .map_err(|_| format!("'{}' cannot stand in a certificate", dsn.host_name()))?;
    let connection = ClientConnection::new(Arc::new(config), name);
    let connection = connection.map_err(|error| format!("TLS: {error}"))?;
    let mut stream = StreamOwned::new(connection, socket);
    // Now, so that a certificate that is not believed is told as such.
    let done = stream.conn.complete_io(&mut stream.sock);
    done.map_err(|error| format!("TLS: {error}"))?;
    Ok(stream)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let named = |error: rustls::pki_types::pem::Error| format!("{}: {error}", path.display());
    CertificateDer::pem_file_iter(path).map_err(named)?.map(|one| one.map_err(named)).collect()
}

fn verifier(dsn: &Dsn, provider: Arc<CryptoProvider>) -> Result<Verifier, String> {
    let mode = dsn.option("sslmode");
    let must = matches!(mode, "verify-ca" | "verify-full");
    let roots = match dsn.option("sslrootcert") {
        "" if must => {
            return Err(format!("sslmode {mode} needs sslrootcert, the file of the root"));
        }
        "" => return Ok(Verifier { inner: None, check_name: false, provider }),
        "system" => return Err("sslrootcert=system is not supported: name the file".into()),
        path => certificates(Path::new(path))?,
    };
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root).map_err(|error| format!("sslrootcert: {error}"))?;
    }
    let inner = WebPkiServerVerifier::builder_with_provider(store.into(), provider.clone());
    let inner = inner.build().map_err(|error| format!("sslrootcert: {error}"))?;
    Ok(Verifier { inner: Some(inner), check_name: mode == "verify-full", provider })
}

#[derive(Debug)]
struct Verifier {
    inner: Option<Arc<WebPkiServerVerifier>>,
    check_name: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(inner) = &self.inner else { return Ok(ServerCertVerified::assertion()) };
        let verified = inner.verify_server_cert(certificate, intermediates, name, ocsp, now);
        match verified {
            // Looked at after the signatures.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.check_name => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
