//! DTLS for str0m: the default implementation, with its configuration made once per process instead of once per connection
//! (a self-test of the crypto library that takes most of a millisecond), and the keys that it exports for SRTP handed to us as
//! well, because our egress encrypts what str0m does not know of.
//!
//! str0m takes its crypto as `&'static` objects, so an instance cannot be given its connection. It is made while the connection
//! is: [`capture`] holds a place for the keys open meanwhile.
//!
//! Public for the load generator and for clients under test, which seal packets of their own making the same way.

use std::cell::RefCell;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use str0m::config::CryptoProvider;
use str0m::crypto::CryptoError;
use str0m::crypto::dtls::{
    DtlsCert, DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, DtlsVersion, ProtocolVersion, SrtpProfile,
};
use zeroize::Zeroizing;

use super::srtp::{DtlsRole, Profile, ReceiveKeys, SendKeys, keys_from_dtls, receive_keys_from_dtls};

/// Of the server. A lost flight should not cost a joiner the second that RFC 6347 §4.2.4.1 begins with for links slower than
/// any that carries calls; these go on for half a minute.
static SERVER: Provider = Provider::new(Flights { first_timeout: Duration::from_millis(250), retries: 6 });

pub(super) fn server_crypto() -> CryptoProvider {
    SERVER.crypto()
}

/// When a flight of the handshake that has no answer is sent again: after this, then after twice that, and so on.
#[derive(Debug, Clone, Copy)]
pub struct Flights {
    pub first_timeout: Duration,
    pub retries: usize,
}

/// DTLS for all connections of one kind.
#[derive(Debug)]
pub struct Provider {
    flights: Flights,
    /// The same for all connections: they all ask for the same MTU.
    config: OnceLock<Arc<dimpl::Config>>,
}

impl Provider {
    pub const fn new(flights: Flights) -> Provider {
        Provider { flights, config: OnceLock::new() }
    }

    /// str0m's default crypto with this DTLS.
    pub fn crypto(&'static self) -> CryptoProvider {
        CryptoProvider { dtls_provider: self, ..str0m::crypto::from_feature_flags() }
    }

    fn config(&self, mtu: Option<usize>) -> Result<Arc<dimpl::Config>, CryptoError> {
        if let Some(config) = self.config.get() {
            return Ok(config.clone());
        }
        // ICE proves the client's address before DTLS begins, so a cookie would only cost a round trip.
        let builder = dimpl::Config::builder()
            .use_server_cookie(false)
            .flight_start_rto(self.flights.first_timeout)
            .flight_retries(self.flights.retries);
        let builder = mtu.into_iter().fold(builder, dimpl::ConfigBuilder::mtu);
        let made = builder.build().map_err(|error| CryptoError::Other(format!("DTLS configuration: {error}")))?;
        Ok(self.config.get_or_init(|| Arc::new(made)).clone())
    }
}

/// Where the SRTP keys of one connection appear once its handshake is done.
#[derive(Clone, Default)]
pub struct KeyExport(Arc<Mutex<Option<Exported>>>);

struct Exported {
    profile: Profile,
    keying_material: Zeroizing<Vec<u8>>,
    role: DtlsRole,
}

impl KeyExport {
    /// The keys of both directions; gives them once, as a second user of the send keys would repeat its packet indices.
    pub fn take(&self) -> Option<(SendKeys, ReceiveKeys)> {
        let exported = self.0.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        keys_from_dtls(exported.profile, &exported.keying_material, exported.role).ok()
    }

    /// What tells whether a packet is the client's; of no use any more once [`take`](Self::take) gave the keys.
    pub fn receive_keys(&self) -> Option<ReceiveKeys> {
        let exported = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Exported { profile, keying_material, role } = exported.as_ref()?;
        receive_keys_from_dtls(*profile, keying_material, *role).ok()
    }

    /// As if a handshake had exported this.
    #[cfg(test)]
    pub fn filled(profile: Profile, keying_material: &[u8], role: DtlsRole) -> Self {
        let export = KeyExport::default();
        export.set(Exported { profile, keying_material: Zeroizing::new(keying_material.to_vec()), role });
        export
    }

    fn set(&self, exported: Exported) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(exported);
    }
}

impl fmt::Debug for KeyExport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyExport")
    }
}

thread_local! {
    /// What takes the keys of the instance that is made next on this thread.
    static CAPTURING: RefCell<Option<KeyExport>> = const { RefCell::new(None) };
}

/// Runs `build`, which makes one connection, and gives the place where its keys will appear.
pub fn capture<T>(build: impl FnOnce() -> T) -> (T, KeyExport) {
    let export = KeyExport::default();
    CAPTURING.set(Some(export.clone()));
    let built = build();
    CAPTURING.set(None);
    (built, export)
}

impl DtlsProvider for Provider {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        dimpl::certificate::generate_self_signed_certificate().ok()
    }

    fn new_dtls(
        &self,
        certificate: &DtlsCert,
        now: Instant,
        version: DtlsVersion,
        mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        let (config, certificate) = (self.config(mtu)?, certificate.clone());
        let dtls = match version {
            DtlsVersion::Dtls12 => dimpl::Dtls::new_12(config, certificate, now),
            DtlsVersion::Dtls13 => dimpl::Dtls::new_13(config, certificate, now),
            DtlsVersion::Auto => dimpl::Dtls::new_auto(config, certificate, now),
            other => return Err(CryptoError::Other(format!("unsupported DTLS version: {other}"))),
        };
        let export = CAPTURING.take().unwrap_or_default();
        Ok(Box::new(Instance { dtls, export }))
    }
}

struct Instance {
    dtls: dimpl::Dtls,
    export: KeyExport,
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Instance")
    }
}

impl DtlsInstance for Instance {
    fn poll_output<'a>(&mut self, buffer: &'a mut [u8]) -> DtlsOutput<'a> {
        let role = if self.dtls.is_active() { DtlsRole::Client } else { DtlsRole::Server };
        let output = self.dtls.poll_output(buffer);
        if let DtlsOutput::KeyingMaterial(material, profile) = &output
            && let Some(profile) = our_profile(*profile)
        {
            self.export.set(Exported { profile, keying_material: Zeroizing::new(material.to_vec()), role });
        }
        output
    }

    fn set_active(&mut self, active: bool) {
        self.dtls.set_active(active);
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        self.dtls.handle_packet(packet)
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.dtls.handle_timeout(now)
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        self.dtls.send_application_data(data)
    }

    fn is_active(&self) -> bool {
        self.dtls.is_active()
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.dtls.protocol_version()
    }

    fn is_closing(&self) -> bool {
        self.dtls.is_closing()
    }

    fn is_closed(&self) -> bool {
        self.dtls.is_closed()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        self.dtls.close()
    }
}

/// `None`: one that we cannot send with. None is offered.
fn our_profile(profile: SrtpProfile) -> Option<Profile> {
    match profile {
        SrtpProfile::AEAD_AES_128_GCM => Some(Profile::AeadAes128Gcm),
        SrtpProfile::AEAD_AES_256_GCM => Some(Profile::AeadAes256Gcm),
        SrtpProfile::AES128_CM_SHA1_80 => Some(Profile::AesCm128HmacSha1_80),
        _ => None,
    }
}
