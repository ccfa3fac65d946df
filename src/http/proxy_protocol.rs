//! The PROXY protocol, version 2: what a balancer says before a TLS connection about the client it passes on.
//! <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>

use std::io;
use std::net::SocketAddr;

use ppp::v2::{Addresses, Command, Header, ParseError, Protocol};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Signature, version and command, family and protocol, length (§2.2).
const FIXED_BYTES: usize = 16;
/// The longest rest of a header taken: addresses, and the few hundred bytes of what balancers add about TLS and themselves.
const MAX_REST_BYTES: usize = 2048;

/// Both ends of a client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    pub client: SocketAddr,
    pub local: SocketAddr,
}

/// Reads the header and not a byte more. `None`: the balancer speaks for itself, to see whether we are alive.
pub async fn read_header(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Ends>> {
    let mut bytes = vec![0; FIXED_BYTES];
    stream.read_exact(&mut bytes).await?;
    let rest = usize::from(u16::from_be_bytes([bytes[FIXED_BYTES - 2], bytes[FIXED_BYTES - 1]]));
    // Whether it is a header at all shows in its beginning: only then is its length one.
    match Header::try_from(&bytes[..]) {
        Err(ParseError::Partial(..)) if rest > MAX_REST_BYTES => {
            return Err(io::Error::other("a PROXY protocol header of too many bytes"));
        }
        Ok(_) | Err(ParseError::Partial(..)) => {}
        Err(error) => return Err(io::Error::other(error)),
    }
    bytes.resize(FIXED_BYTES + rest, 0);
    stream.read_exact(&mut bytes[FIXED_BYTES..]).await?;
    let header = Header::try_from(&bytes[..]).map_err(io::Error::other)?;
    let ends = |client: SocketAddr, local: SocketAddr| {
        let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        Ok(Some(Ends { client: canonical(client), local: canonical(local) }))
    };
    match (header.command, header.protocol, header.addresses) {
        (Command::Local, ..) => Ok(None),
        (Command::Proxy, Protocol::Stream, Addresses::IPv4(a)) => {
            ends((a.source_address, a.source_port).into(), (a.destination_address, a.destination_port).into())
        }
        (Command::Proxy, Protocol::Stream, Addresses::IPv6(a)) => {
            ends((a.source_address, a.source_port).into(), (a.destination_address, a.destination_port).into())
        }
        (Command::Proxy, ..) => Err(io::Error::other("a PROXY protocol header without TCP addresses")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
    const V4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 1, 0x12, 0x34, 1, 187];

    fn header(version_command: u8, family_protocol: u8, rest: &[u8]) -> Vec<u8> {
        let length = (rest.len() as u16).to_be_bytes();
        [SIGNATURE, &[version_command, family_protocol], &length, rest].concat()
    }

    /// What is read, and what is left for TLS.
    async fn read(mut bytes: &[u8]) -> (Option<Option<(String, String)>>, usize) {
        let ends = read_header(&mut bytes).await.ok();
        (ends.map(|ends| ends.map(|ends| (ends.client.to_string(), ends.local.to_string()))), bytes.len())
    }

    #[tokio::test]
    async fn headers_say_who_the_client_is() {
        let v4 = ("192.0.2.1:4660".to_owned(), "198.51.100.1:443".to_owned());
        let mut v6 = [0; 36];
        v6[..4].copy_from_slice(&[0x20, 1, 0x0d, 0xb8]);
        v6[15] = 9;
        v6[31] = 1;
        v6[32..].copy_from_slice(&[0, 80, 1, 187]);
        let mut mapped = v6;
        mapped[..16].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 7]);
        let with_more = [&V4[..], &[4, 0, 2, 9, 9]].concat();
        let longest = [&V4[..], &[0; MAX_REST_BYTES - 12]].concat();
        for (bytes, expected, what) in [
            (header(0x21, 0x11, &V4), Some(v4.clone()), "IPv4"),
            (header(0x21, 0x11, &with_more), Some(v4.clone()), "with TLVs"),
            (header(0x21, 0x11, &longest), Some(v4), "as long as it may be"),
            (header(0x21, 0x21, &v6), Some(("[2001:db8::9]:80".into(), "[::1]:443".into())), "IPv6"),
            (header(0x21, 0x21, &mapped), Some(("192.0.2.7:80".into(), "[::1]:443".into())), "IPv4 as IPv6"),
            (header(0x20, 0x00, &[]), None, "LOCAL"),
            (header(0x20, 0x11, &V4), None, "LOCAL, with addresses that mean nothing"),
        ] {
            let hello = [&bytes[..], b"\x16\x03\x01"].concat();
            assert_eq!(read(&hello).await, (Some(expected), 3), "{what}");
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused_without_reading_on() {
        let rest = [0x5a; 4096];
        for (bytes, what) in [
            (b"PROXY TCP4 192.0.2.1 198.51.100.1 4660 443\r\n".to_vec(), "version 1"),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x01\x02\x03\x04\x05".to_vec(), "TLS"),
            (header(0x11, 0x11, &V4), "another version"),
            (header(0x22, 0x11, &V4), "another command"),
            (header(0x21, 0x12, &V4), "UDP"),
            (header(0x21, 0x00, &V4), "an unknown family"),
            (header(0x21, 0x31, &[0; 216]), "a Unix socket"),
            (header(0x21, 0x51, &V4), "no family"),
            (header(0x21, 0x11, &V4[..11]), "too short for its addresses"),
            (header(0x21, 0x11, &[0; MAX_REST_BYTES + 1]), "too long"),
        ] {
            let (ends, left) = read(&[&bytes[..], &rest].concat()).await;
            assert_eq!(ends, None, "{what}");
            assert!(left >= rest.len(), "{what}");
            assert_eq!(read(&bytes[..15]).await.0, None, "{what}, cut short");
        }
    }
}
