//! Access tokens: the claims and the keys that sign them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A fresh token lives at least this long, seconds.
const MIN_VALIDITY_S: u64 = 600;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct VideoGrant {
    pub room_join: bool,
    pub room_create: bool,
    pub room: String,
    pub can_publish: Option<bool>,
    pub can_subscribe: Option<bool>,
    pub can_publish_data: Option<bool>,
    pub can_publish_sources: Vec<String>,
    pub can_update_own_metadata: Option<bool>,
    pub hidden: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Claims {
    pub iss: String,
    pub sub: String,
    pub exp: u64,
    pub nbf: u64,
    pub name: String,
    pub metadata: String,
    pub attributes: BTreeMap<String, String>,
    pub video: VideoGrant,
}

impl Claims {
    /// The same grants, valid for at least ten more minutes.
    pub fn refreshed(&self, now_unix_s: u64) -> Claims {
        Claims { nbf: now_unix_s, exp: self.exp.max(now_unix_s + MIN_VALIDITY_S), ..self.clone() }
    }
}

/// The API key and secret that sign tokens.
pub struct Keys {
    pub secret: String,
}

impl Keys {
    pub fn sign(&self, claims: &Claims) -> Result<String, jsonwebtoken::errors::Error> {
        jsonwebtoken::encode(
            &jsonwebtoken::Header::default(),
            claims,
            &jsonwebtoken::EncodingKey::from_secret(self.secret.as_bytes()),
        )
    }
}
