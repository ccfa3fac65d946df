//! A secret text: wiped from memory when dropped, never shown.

use std::fmt;

use zeroize::Zeroizing;

#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// The least length, in characters, as LiveKit demands it: HS256 wants as many bits as its hash has.
    pub const LEAST_CHARACTERS: usize = 32;

    /// The fewest different characters: random text of the least length has about twice as many,
    /// `changemechangemechangemechangeme` has seven.
    const LEAST_VARIETY: usize = 8;

    /// Refuses what could be guessed; the error says why.
    pub fn new(text: String) -> Result<Secret, String> {
        let text = Zeroizing::new(text);
        let length = text.chars().count();
        if length < Secret::LEAST_CHARACTERS {
            return Err(format!(
                "the secret has {length} characters and needs at least {}; make one with `openssl rand -hex 32`",
                Secret::LEAST_CHARACTERS
            ));
        }
        let variety = text.chars().collect::<std::collections::BTreeSet<char>>().len();
        if variety < Secret::LEAST_VARIETY {
            return Err(
                "the secret repeats a few characters and can be guessed; make one with `openssl rand -hex 32`".into()
            );
        }
        Ok(Secret(text))
    }

    /// What another program has made: how strong it is was decided there. It must fit into a header of HTTP.
    pub fn token(text: String) -> Result<Secret, String> {
        let text = Zeroizing::new(text);
        if text.is_empty() || !text.chars().all(|c| c.is_ascii_graphic()) {
            return Err("is no access token: expected letters, digits and punctuation without spaces".to_owned());
        }
        Ok(Secret(text))
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
