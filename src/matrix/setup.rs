//! What is wrong between our homeserver and us, found out at the start by asking it: a registration that it does not have, an
//! address that it cannot reach, a switch that is off. Run by `serve`.

use std::sync::Arc;
use std::time::Duration;

use super::homeserver::{Homeserver, HomeserverError};
use crate::config::Config;

/// Both may start together, and Synapse takes half a minute on a small machine.
const RETRY: Duration = Duration::from_secs(5);

/// Logs what is wrong, once the homeserver answers.
///
/// Asking has an effect too: Synapse sends an application service that was away what it missed as soon as it is pinged.
pub async fn look(homeserver: Arc<Homeserver>, config: Arc<Config>) {
    let mut is_told = false;
    loop {
        match complaints(&homeserver, &config).await {
            Ok(complaints) => {
                for complaint in complaints {
                    tracing::warn!("{complaint}");
                }
                return;
            }
            Err(error) if !is_told => tracing::warn!("homeserver: {} was asked: {error}; trying on", config.homeserver),
            Err(_) => {}
        }
        is_told = true;
        tokio::time::sleep(RETRY).await;
    }
}

/// Sentences for the operator. An error: nothing can be told now.
pub async fn complaints(homeserver: &Homeserver, config: &Config) -> Result<Vec<String>, HomeserverError> {
    let mut complaints = Vec::new();
    if config.access.bot_access_token.is_some() {
        match homeserver.bot().await {
            Ok(_) => {}
            Err(HomeserverError::UnknownToken) => complaints.push(
                "access.bot_access_token: the homeserver does not know it; log the bot in again and take the new one"
                    .to_owned(),
            ),
            Err(error) => return Err(error),
        }
    }
    if config.appservice.enabled {
        complaints.extend(appservice(homeserver, config).await?);
    }
    Ok(complaints)
}

async fn appservice(homeserver: &Homeserver, config: &Config) -> Result<Vec<String>, HomeserverError> {
    let appservice = &config.appservice;
    let mut complaints = Vec::new();
    match homeserver.can_act_as(&format!("@{}:{}", appservice.sender_localpart, config.server_name)).await {
        Ok(true) => {}
        Ok(false) => complaints.push(format!(
            "appservice.sender_localpart: the homeserver knows us by another name than {}; {ANEW}",
            appservice.sender_localpart
        )),
        Err(HomeserverError::UnknownToken) => {
            return Ok(vec![format!(
                "appservice: the homeserver does not know us, so nobody is let into calls; {ANEW}"
            )]);
        }
        Err(error) => return Err(error),
    }
    match homeserver.is_joined_server("!parlour", &config.server_name).await {
        // It finds fault with the made-up room, or knows that nobody is there.
        Ok(_) | Err(HomeserverError::Invalid) => {}
        Err(HomeserverError::NotSupported) => complaints.push(
            "appservice: the homeserver does not tell who is joined to a room (Synapse: experimental_features.msc4502_enabled), so lists of members are asked for, which takes longer in large rooms".to_owned(),
        ),
        Err(HomeserverError::Forbidden) => complaints.push(format!(
            "appservice: the homeserver does not let us ask who is joined to a room, so lists of members are asked for; {ANEW}"
        )),
        Err(error) => return Err(error),
    }
    match homeserver.ping(&appservice.id).await {
        Ok(true) | Err(HomeserverError::NotSupported) => {}
        Ok(false) => complaints.push(format!(
            "appservice.url: the homeserver does not reach us at {}, so who leaves a room is noticed late; if that address is right for it, {ANEW}",
            appservice.url
        )),
        Err(HomeserverError::Forbidden) => complaints.push(format!(
            "appservice.id: the homeserver knows us by another name than {}; {ANEW}",
            appservice.id
        )),
        Err(error) => return Err(error),
    }
    complaints.extend(match (appservice.proxied, homeserver.proxies_rtc().await?) {
        (true, false) => Some(format!(
            "appservice.proxied: the homeserver does not hand requests for rtc/livekit on, so the newest clients cannot join calls; set experimental_features.msc4512_enabled in Synapse, or appservice.proxied = false here; {ANEW}"
        )),
        (false, true) => Some(
            "appservice.proxied: the homeserver hands requests for rtc/livekit on; set it to true, and the newest clients come that way".to_owned(),
        ),
        _ => None,
    });
    Ok(complaints)
}

const ANEW: &str = "give it the registration that `parlour registration` prints now (app_service_config_files in Synapse) and restart it";
