//! A Matrix server name taken apart: host and optional port (Matrix specification, appendix "Server Name").

use std::net::{IpAddr, Ipv6Addr};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerName {
    pub host: Host,
    pub port: Option<u16>,
    /// As it came: what goes into the `Host` header.
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    Address(IpAddr),
    Name(String),
}

impl ServerName {
    pub fn parse(text: &str) -> Option<ServerName> {
        ruma_identifiers_validation::server_name::validate(text).ok()?;
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']')?;
                (Host::Address(address.parse::<Ipv6Addr>().ok()?.into()), port.strip_prefix(':'))
            }
            None => {
                let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
                let host = host.parse::<IpAddr>().map_or_else(|_| Host::Name(host.to_ascii_lowercase()), Host::Address);
                (host, port)
            }
        };
        let port = port.map(str::parse).transpose().ok()?;
        Some(ServerName { host, port, text: text.to_owned() })
    }

    /// The host alone, as it came.
    pub fn without_port(self) -> ServerName {
        let text = match self.port {
            Some(_) => self.text.rsplit_once(':').map_or(self.text.as_str(), |(host, _)| host).to_owned(),
            None => self.text,
        };
        ServerName { host: self.host, port: None, text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        let parse = |text: &str| ServerName::parse(text).map(|n| (n.host, n.port));
        let name = |name: &str| Host::Name(name.to_owned());
        assert_eq!(parse("Example.org"), Some((name("example.org"), None)));
        assert_eq!(parse("a.b:8448"), Some((name("a.b"), Some(8448))));
        assert_eq!(parse("1.2.3.4"), Some((Host::Address("1.2.3.4".parse().unwrap()), None)));
        assert_eq!(parse("[::1]:443"), Some((Host::Address("::1".parse().unwrap()), Some(443))));
        for (with_port, without) in
            [("a.b:1", "a.b"), ("[::1]:443", "[::1]"), ("[::1]", "[::1]"), ("1.2.3.4:5", "1.2.3.4")]
        {
            let name = ServerName::parse(with_port).unwrap().without_port();
            assert_eq!(Some(name), ServerName::parse(without));
        }
        for wrong in ["", ":1", "a:b", "a:99999", "a/b", "a b", "[::1", "[x]", "a@b", "é.org", "[::1]x"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
