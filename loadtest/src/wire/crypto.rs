//! What the clients' connections encrypt with: str0m's crypto, and the server's way to the SRTP keys of a handshake
//! ([`parlour::transport::dtls`]).

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parlour::transport::dtls::{Flights, Provider};
use str0m::crypto::CryptoProvider;

/// libwebrtc's first wait. A second, as RFC 6347 has it, would be added to every join into a server that is not ready for the
/// first flight, as Janus is not. Doubled each time, these go on for longer than anybody waits for a join.
static PROVIDER: Provider = Provider::new(Flights { first_timeout: Duration::from_millis(50), retries: 9 });

/// The crypto of every connection of the process.
pub fn crypto() -> Arc<CryptoProvider> {
    static CRYPTO: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    CRYPTO.get_or_init(|| Arc::new(PROVIDER.crypto())).clone()
}
