//! The two tokens by which homeserver and application service know each other: the configured ones, else those made when
//! they were first needed, by `parlour registration` or `parlour serve`.

use zeroize::Zeroizing;

use super::private_file::{self, problem};
use super::{Config, Problem, Secret};

/// Inside `data_dir`.
const FILE: &str = "appservice.toml";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppServiceTokens {
    /// By which the homeserver knows us. With it we can act as any of its users.
    pub as_token: Secret,
    /// By which we know the homeserver. Whoever has it can tell us to be any user.
    pub hs_token: Secret,
}

/// The configured tokens, else those made before.
pub fn existing_appservice_tokens(config: &Config) -> Result<Option<AppServiceTokens>, Problem> {
    if let (Some(as_token), Some(hs_token)) = (&config.appservice.as_token, &config.appservice.hs_token) {
        return Ok(Some(AppServiceTokens { as_token: as_token.clone(), hs_token: hs_token.clone() }));
    }
    let file = config.data_dir.join(FILE);
    if !file.exists() {
        return Ok(None);
    }
    let mut secrets = private_file::read(&file, "appservice")?;
    match (secrets.remove("as_token"), secrets.remove("hs_token")) {
        (Some(as_token), Some(hs_token)) => Ok(Some(AppServiceTokens { as_token, hs_token })),
        _ => Err(problem(
            "appservice",
            format!("{} lacks as_token or hs_token; delete it and run `parlour registration` again", file.display()),
        )),
    }
}

/// Creates `data_dir/appservice.toml` (mode 0600) when no tokens are configured and none were made before.
pub fn appservice_tokens(config: &Config) -> Result<AppServiceTokens, Problem> {
    if let Some(tokens) = existing_appservice_tokens(config)? {
        return Ok(tokens);
    }
    let [as_token, hs_token] = [(); 2].map(|()| Zeroizing::new(private_file::random(private_file::SECRET_LENGTH)));
    let comment = "The tokens in the registration file of the homeserver, see `parlour registration`. Made by Parlour.";
    private_file::create(&config.data_dir.join(FILE), comment, &[("as_token", &as_token), ("hs_token", &hs_token)])?;
    let secret = |text: &str| Secret::new(text.to_owned()).map_err(|what| problem("appservice", what));
    Ok(AppServiceTokens { as_token: secret(&as_token)?, hs_token: secret(&hs_token)? })
}
