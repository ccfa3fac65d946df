//! Which servers a room lets take part: `m.room.server_acl` (Client-Server API, "Server Access Control Lists"). PURE.
//!
//! Homeservers drop what a denied server sends; a call would go on past it. Read by [`room_events`](super::room_events),
//! asked by [`Admission`](super::Admission) and [`RoomWatch`](super::RoomWatch).

use serde_json::Value;

/// Patterns of one list that are kept. An event has room for several thousand; nobody's list is as long.
const MOST_PATTERNS: usize = 10_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAcl {
    /// Lower case.
    allow: Vec<String>,
    deny: Vec<String>,
    allow_ip_literals: bool,
}

impl ServerAcl {
    /// The list in the content of an event. As the specification has it, what is malformed counts as not there, and
    /// without `allow` nobody is allowed.
    pub fn parse(content: &Value) -> ServerAcl {
        ServerAcl {
            allow: patterns(&content["allow"]),
            deny: patterns(&content["deny"]),
            allow_ip_literals: content["allow_ip_literals"].as_bool().unwrap_or(true),
        }
    }

    /// Whether users of `server` may take part.
    pub fn allows(&self, server: &str) -> bool {
        let host = host(server).to_ascii_lowercase();
        if !self.allow_ip_literals && is_ip_literal(&host) {
            return false;
        }
        let listed = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern.as_bytes(), host.as_bytes()));
        !listed(&self.deny) && listed(&self.allow)
    }
}

fn patterns(list: &Value) -> Vec<String> {
    let texts = list.as_array().into_iter().flatten().filter_map(Value::as_str);
    texts.take(MOST_PATTERNS).map(str::to_ascii_lowercase).collect()
}

/// The server name without its port, which lists never look at.
fn host(server: &str) -> &str {
    match server.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => server,
    }
}

fn is_ip_literal(host: &str) -> bool {
    host.starts_with('[') || host.parse::<std::net::Ipv4Addr>().is_ok()
}

/// `*` stands for any text, `?` for one character. In time proportional to the product of the lengths: a pattern that goes
/// back and forth is any moderator's to write.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == b'?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                // The star takes one character more.
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    (p, t) = (at + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn lists_are_read_as_the_specification_has_them() {
        let list = json!({"allow": ["*"], "deny": ["*.evil.com", "evil.com", "b?d.org"], "allow_ip_literals": false});
        let closed = json!({"allow": [], "deny": []});
        let only = json!({"allow": ["good.org", "*.good.org"]});
        for (content, server, allowed) in [
            (&list, "example.org", true),
            (&list, "evil.com", false),
            (&list, "EVIL.com:8448", false),
            (&list, "sub.evil.com", false),
            (&list, "notevil.com", true),
            (&list, "bad.org", false),
            (&list, "bd.org", true),
            (&list, "1.2.3.4", false),
            (&list, "1.2.3.4:8448", false),
            (&list, "[2001:db8::1]", false),
            (&list, "[2001:db8::1]:8448", false),
            (&closed, "example.org", false),
            (&only, "good.org:1234", true),
            (&only, "a.b.good.org", true),
            (&only, "example.org", false),
            (&json!({"allow": ["*"]}), "1.2.3.4", true),
            (&json!({"allow": "*", "deny": 5}), "example.org", false),
            (&json!({"allow": [5, "*"], "deny": [{}]}), "example.org", true),
            (&json!({"allow": ["*"], "allow_ip_literals": "no"}), "1.2.3.4", true),
            (&json!([]), "example.org", false),
        ] {
            assert_eq!(ServerAcl::parse(content).allows(server), allowed, "{content} {server}");
        }
    }

    /// As clear as can be, and exponential.
    fn slow(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => (0..=text.len()).any(|taken| slow(rest, &text[taken..])),
            (Some((b'?', rest)), Some((_, text))) => slow(rest, text),
            (Some((c, rest)), Some((d, text))) => c == d && slow(rest, text),
            _ => false,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn patterns_agree_with_the_slow_reference(pattern in "[ab*?]{0,8}", text in "[ab]{0,8}") {
            prop_assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), slow(pattern.as_bytes(), text.as_bytes()));
        }
    }

    #[test]
    fn a_malicious_pattern_takes_no_time() {
        let pattern = "*a".repeat(5000) + "b";
        assert!(!matches(pattern.as_bytes(), "a".repeat(255).as_bytes()));
    }
}
