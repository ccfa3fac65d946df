//! The certificate of the TLS listener, from files that something else renews: `certbot`, `acme.sh`, a Kubernetes secret.
//! New ones are found by a look at the files every minute, or at once with SIGHUP; while they do not load, the old one stays.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{Error as TlsError, InconsistentKeys};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Certificates are renewed weeks before their end.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Certificates {
    certificate_file: PathBuf,
    private_key_file: PathBuf,
    provider: Arc<CryptoProvider>,
    current: RwLock<Arc<CertifiedKey>>,
}

/// What changes of a file when it is written or replaced: inode, size, time of change in seconds and nanoseconds.
type Stamp = Option<(u64, u64, i64, i64)>;

impl Certificates {
    /// The error is a sentence for the operator.
    pub fn load(
        certificate_file: &Path,
        private_key_file: &Path,
        provider: Arc<CryptoProvider>,
    ) -> Result<Certificates, String> {
        let current = RwLock::new(Arc::new(read(certificate_file, private_key_file, &provider)?));
        Ok(Certificates {
            certificate_file: certificate_file.to_owned(),
            private_key_file: private_key_file.to_owned(),
            provider,
            current,
        })
    }

    /// Handshakes from now on use what the files hold. On an error, which is a sentence for the operator, nothing changes.
    fn reload(&self) -> Result<(), String> {
        let new = read(&self.certificate_file, &self.private_key_file, &self.provider)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        Ok(())
    }

    /// Keeps up with the files until the server stops.
    pub async fn watch(self: Arc<Self>, shutdown: CancellationToken) {
        let mut hangups = match signal(SignalKind::hangup()) {
            Ok(hangups) => hangups,
            Err(error) => return tracing::warn!("new certificates will not be found: no SIGHUP: {error}"),
        };
        let mut known = self.stamps();
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        loop {
            let asked = tokio::select! {
                _ = hangups.recv() => true,
                _ = look.tick() => false,
                () = shutdown.cancelled() => return,
            };
            self.look(&mut known, asked);
        }
    }

    /// Loads the files when they are not those `known` any more, or `asked` to.
    fn look(&self, known: &mut [Stamp; 2], asked: bool) {
        // Before they are read: what changes meanwhile is seen the next time. Files that do not load are told of once.
        let found = self.stamps();
        if std::mem::replace(known, found) == found && !asked {
            return;
        }
        match self.reload() {
            Ok(()) => tracing::info!("the certificate was loaded anew"),
            Err(what) => tracing::warn!("the certificate stays the old one: {what}"),
        }
    }

    /// What lies behind symbolic links counts.
    fn stamps(&self) -> [Stamp; 2] {
        [&self.certificate_file, &self.private_key_file].map(|file| {
            let metadata = fs::metadata(file).ok()?;
            Some((metadata.ino(), metadata.size(), metadata.mtime(), metadata.mtime_nsec()))
        })
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

fn read(certificate_file: &Path, private_key_file: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, String> {
    let certificate_error = |what: String| format!("tls.certificate_file: {}: {what}", certificate_file.display());
    let key_error = |what: String| format!("tls.private_key_file: {}: {what}", private_key_file.display());

    let chain: Result<Vec<CertificateDer<'_>>, _> =
        CertificateDer::pem_file_iter(certificate_file).and_then(Iterator::collect);
    let chain = chain.map_err(|error| certificate_error(explain(error, "certificate")))?;
    if chain.is_empty() {
        return Err(certificate_error(explain(pem::Error::NoItemsFound, "certificate")));
    }
    let key = PrivateKeyDer::from_pem_file(private_key_file)
        .map_err(|error| key_error(explain(error, "unencrypted private key")))?;
    let key = provider.key_provider.load_private_key(key).map_err(|error| key_error(error.to_string()))?;

    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) | Err(TlsError::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(TlsError::InconsistentKeys(_)) => Err(key_error(format!(
            "the key does not belong to the certificate in {}, whose first must be the server's own",
            certificate_file.display()
        ))),
        Err(error) => Err(certificate_error(error.to_string())),
    }
}

fn explain(error: pem::Error, wanted: &str) -> String {
    match error {
        pem::Error::Io(error) => format!("cannot be read: {error}"),
        pem::Error::NoItemsFound => format!("there is no {wanted} in PEM form in it"),
        other => format!("is no PEM: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::generate_simple_self_signed;
    use rustls::crypto::aws_lc_rs::default_provider;

    use super::*;

    /// Certificate and key in PEM.
    fn pair() -> (String, String) {
        let made = generate_simple_self_signed(["rtc.example.org".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn what_does_not_load_is_explained_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let [certificate, key] = ["fullchain.pem", "privkey.pem"].map(|name| folder.path().join(name));
        let load = || Certificates::load(&certificate, &key, Arc::new(default_provider()));
        assert!(load().unwrap_err().contains("fullchain.pem: cannot be read: No such file"));
        let (good, good_key) = pair();
        let (other, other_key) = pair();
        for (cert_text, key_text, expected) in [
            ("", &good_key[..], "tls.certificate_file: {cert}: there is no certificate in PEM form in it"),
            (&good_key, &good_key, "tls.certificate_file: {cert}: there is no certificate in PEM form in it"),
            (&good, "", "tls.private_key_file: {key}: there is no unencrypted private key in PEM form in it"),
            (&good, &good, "tls.private_key_file: {key}: there is no unencrypted private key in PEM form in it"),
            (
                &good,
                &other_key,
                "tls.private_key_file: {key}: the key does not belong to the certificate in {cert}, whose first must be the server's own",
            ),
            (
                "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
                &good_key,
                "tls.certificate_file: {cert}: is no PEM: ",
            ),
        ] {
            fs::write(&certificate, cert_text).unwrap();
            fs::write(&key, key_text).unwrap();
            let expected = expected
                .replace("{cert}", &certificate.display().to_string())
                .replace("{key}", &key.display().to_string());
            let error = load().unwrap_err();
            assert!(error.starts_with(&expected), "{error}, not {expected}");
        }
        fs::write(&certificate, format!("{good}{other}")).unwrap();
        fs::write(&key, &good_key).unwrap();
        let certificates = load().unwrap();
        let current = || certificates.current.read().unwrap().clone();
        let first = current();
        assert_eq!(first.cert.len(), 2, "with what leads to the root");
        fs::write(&certificate, &other).unwrap();
        assert!(certificates.reload().unwrap_err().contains("does not belong"));
        assert!(Arc::ptr_eq(&first, &current()));
        fs::write(&key, &other_key).unwrap();
        certificates.reload().unwrap();
        assert_eq!(current().cert[0], first.cert[1]);
    }

    #[test]
    fn a_look_finds_new_files() {
        let folder = tempfile::tempdir().unwrap();
        let [certificate, key] = ["tls.crt", "tls.key"].map(|name| folder.path().join(name));
        let write = |pair: &(String, String)| {
            // As `certbot` and Kubernetes do: another file under the same name.
            for (file, text) in [(&certificate, &pair.0), (&key, &pair.1)] {
                let new = folder.path().join("new");
                fs::write(&new, text).unwrap();
                fs::rename(&new, file).unwrap();
            }
        };
        write(&pair());
        let certificates = Certificates::load(&certificate, &key, Arc::new(default_provider())).unwrap();
        let mut known = certificates.stamps();
        let mut look = |asked| {
            certificates.look(&mut known, asked);
            certificates.current.read().unwrap().clone()
        };
        let first = look(false);
        assert!(Arc::ptr_eq(&first, &look(false)), "nothing new");
        let again = look(true);
        assert!(!Arc::ptr_eq(&first, &again) && first.cert == again.cert, "asked to");
        write(&pair());
        let second = look(false);
        assert_ne!(first.cert, second.cert);
        fs::remove_file(&key).unwrap();
        assert!(Arc::ptr_eq(&second, &look(false)), "the old one stays");
        write(&pair());
        assert_ne!(second.cert, look(false).cert);
    }
}
