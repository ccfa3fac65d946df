//! The SRTP keys of a connection, taken while str0m makes its DTLS handshake.
//!
//! str0m gives its keys to nobody, but its DTLS provider can be replaced: this one wraps `dimpl` as str0m's own does, and
//! notes the keying material when it passes. `engine` asks for a slot before it builds each connection.
//!
//! The provider also builds the DTLS configuration once, which str0m's does for every connection: checking the crypto library
//! takes about a millisecond, and a load test makes thousands.

use std::cell::RefCell;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parlour::transport::srtp::{DtlsRole, Profile, ReceiveKeys, SendKeys, keys_from_dtls};
use str0m::crypto::dtls::{
    DtlsCert, DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, DtlsVersion, KeyingMaterial, ProtocolVersion,
    SrtpProfile,
};
use str0m::crypto::{CryptoError, CryptoProvider};

/// First wait before a flight of the handshake is repeated: libwebrtc's. A second, as RFC 6347 has it, would be added to every
/// join into a server that is not ready for the first flight, as Janus is not.
const FLIGHT_RTO: Duration = Duration::from_millis(50);
/// Doubled each time, these go on for longer than anybody waits for a join.
const FLIGHT_RETRIES: usize = 9;

/// What the handshake agreed on.
pub struct Agreed {
    profile: SrtpProfile,
    material: KeyingMaterial,
    role: DtlsRole,
}

impl Agreed {
    /// What we send with, and what they send with. `None` for a suite that is not known here.
    pub fn keys(&self) -> Option<(SendKeys, ReceiveKeys)> {
        let profile = match self.profile {
            SrtpProfile::AES128_CM_SHA1_80 => Profile::AesCm128HmacSha1_80,
            SrtpProfile::AEAD_AES_128_GCM => Profile::AeadAes128Gcm,
            SrtpProfile::AEAD_AES_256_GCM => Profile::AeadAes256Gcm,
            _ => return None,
        };
        keys_from_dtls(profile, &self.material, self.role).ok()
    }

    /// The name of the suite in IANA's registry, without `SRTP_`.
    pub fn suite(&self) -> &'static str {
        match self.profile {
            SrtpProfile::AES128_CM_SHA1_80 => "AES128_CM_HMAC_SHA1_80",
            SrtpProfile::AEAD_AES_128_GCM => "AEAD_AES_128_GCM",
            SrtpProfile::AEAD_AES_256_GCM => "AEAD_AES_256_GCM",
            _ => "unknown",
        }
    }
}

/// Where the keys of one connection appear once its handshake is done.
pub type Slot = Arc<OnceLock<Agreed>>;

thread_local! {
    /// The provider is shared by all connections, so the one under construction is passed aside.
    static UNDER_CONSTRUCTION: RefCell<Option<Slot>> = const { RefCell::new(None) };
}

/// Runs `build`, which must build one connection; its keys will be in the slot.
pub fn capturing<T>(build: impl FnOnce() -> T) -> (T, Slot) {
    let slot = Slot::default();
    UNDER_CONSTRUCTION.with(|cell| cell.replace(Some(slot.clone())));
    let built = build();
    UNDER_CONSTRUCTION.with(|cell| cell.replace(None));
    (built, slot)
}

/// The crypto of every connection of the process.
pub fn crypto() -> Arc<CryptoProvider> {
    static PROVIDER: CapturingProvider = CapturingProvider { config: OnceLock::new() };
    static CRYPTO: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    let make = || Arc::new(CryptoProvider { dtls_provider: &PROVIDER, ..str0m::crypto::from_feature_flags() });
    CRYPTO.get_or_init(make).clone()
}

struct CapturingProvider {
    config: OnceLock<Arc<dimpl::Config>>,
}

impl fmt::Debug for CapturingProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CapturingProvider")
    }
}

impl DtlsProvider for CapturingProvider {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        dimpl::certificate::generate_self_signed_certificate().ok()
    }

    fn new_dtls(
        &self,
        cert: &DtlsCert,
        now: Instant,
        version: DtlsVersion,
        _mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        let config = match self.config.get() {
            Some(config) => config.clone(),
            None => {
                let builder = dimpl::Config::builder()
                    .use_server_cookie(false)
                    .flight_start_rto(FLIGHT_RTO)
                    .flight_retries(FLIGHT_RETRIES);
                let config = builder.build();
                let config = Arc::new(config.map_err(|e| CryptoError::Other(e.to_string()))?);
                self.config.get_or_init(|| config).clone()
            }
        };
        let dtls = match version {
            DtlsVersion::Dtls12 => dimpl::Dtls::new_12(config, cert.clone(), now),
            DtlsVersion::Dtls13 => dimpl::Dtls::new_13(config, cert.clone(), now),
            _ => dimpl::Dtls::new_auto(config, cert.clone(), now),
        };
        let slot = UNDER_CONSTRUCTION.with(|cell| cell.take()).unwrap_or_default();
        Ok(Box::new(CapturingDtls { dtls, slot }))
    }
}

struct CapturingDtls {
    dtls: dimpl::Dtls,
    slot: Slot,
}

impl fmt::Debug for CapturingDtls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CapturingDtls")
    }
}

impl DtlsInstance for CapturingDtls {
    fn set_active(&mut self, active: bool) {
        self.dtls.set_active(active);
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        self.dtls.handle_packet(packet)
    }

    fn poll_output<'a>(&mut self, buf: &'a mut [u8]) -> DtlsOutput<'a> {
        let role = if self.dtls.is_active() { DtlsRole::Client } else { DtlsRole::Server };
        let output = self.dtls.poll_output(buf);
        if let DtlsOutput::KeyingMaterial(material, profile) = &output {
            let _ = self.slot.set(Agreed { profile: *profile, material: KeyingMaterial::new(material), role });
        }
        output
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
