//! Janus' VideoRoom: comes after LiveKit.

use super::{JoinError, JoinSpec, Session};
use crate::engine::Engine;

#[derive(Clone)]
pub struct Janus;

impl Janus {
    pub async fn join(&self, _engine: &Engine, spec: JoinSpec) -> Result<Session, JoinError> {
        Err(JoinError::Failed { identity: spec.identity, why: "Janus is not driven yet".into() })
    }
}
