//! Where a deployment puts us: routes also answer under the paths of `public_url` and `appservice.url` and under the
//! prefixes that today's guides give to the two services we stand in for, whether or not a proxy strips them.

use axum::http::Uri;

/// The token service's and the SFU's.
const DEPLOYED: [&str; 2] = ["/livekit/jwt", "/livekit/sfu"];

/// The URI as the router knows it: prefixes gone, slashes single. `configured` are `""` or `/…` without a slash at the end.
pub fn stripped(uri: &Uri, configured: &[String]) -> Uri {
    let mut path = String::with_capacity(uri.path().len());
    for c in uri.path().chars() {
        if c != '/' || !path.ends_with('/') {
            path.push(c);
        }
    }
    let mut rest = path.as_str();
    for prefix in configured.iter().map(String::as_str).chain(DEPLOYED) {
        rest = without(rest, prefix);
    }
    let rest = if rest.is_empty() { "/" } else { rest };
    let target = uri.query().map_or_else(|| rest.to_owned(), |query| format!("{rest}?{query}"));
    // It was a valid path before, and a valid path from a slash on is one.
    target.parse().unwrap_or_else(|_| uri.clone())
}

fn without<'a>(path: &'a str, prefix: &str) -> &'a str {
    match path.strip_prefix(prefix) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => rest,
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_and_double_slashes_disappear() {
        for (uri, public_path, expected) in [
            ("/rtc", "", "/rtc"),
            ("//rtc/v1?a=//b", "", "/rtc/v1?a=//b"),
            ("/livekit/sfu/rtc/v1/validate?x=%2F", "", "/rtc/v1/validate?x=%2F"),
            ("/livekit/jwt//sfu/get", "", "/sfu/get"),
            ("/livekit/sfu", "", "/"),
            ("/livekit/sfu/", "", "/"),
            ("/livekit/sfux/rtc", "", "/livekit/sfux/rtc"),
            ("/calls/rtc", "/calls", "/rtc"),
            ("/calls/livekit/jwt/healthz", "/calls", "/healthz"),
            ("/rtc", "/calls", "/rtc"),
            ("/calls", "/calls", "/"),
            ("/livekit/jwt/sfu/get", "/livekit/jwt", "/sfu/get"),
            ("/as/_matrix/app/v1/ping", "/calls", "/_matrix/app/v1/ping"),
        ] {
            let configured = [public_path.to_owned(), "/as".to_owned()];
            assert_eq!(stripped(&uri.parse().unwrap(), &configured).to_string(), expected, "{uri}");
        }
    }
}
