// A real Synapse on SQLite in a throwaway folder: the homeserver beside which Parlour stands in tests and in the demo.
import { createHmac, randomBytes } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { MatrixUser } from "./matrix-user.mjs";
import { python } from "./python.mjs";
import { Service } from "./service.mjs";

/** First start on two busy cores: Python's imports and SQLite's schema take some 10 s. */
const START_TIMEOUT_MS = 90_000;

/** The tests send in bursts what a person sends in minutes. */
const NO_LIMIT = { per_second: 1000, burst_count: 10_000 };

/**
 * @param {{folder: string, address?: string, port: number, serverName: string, transports: object[], turn?: {uris: string[], secret: string}}} options
 *   `transports`: what clients are told about call servers, `[{type: "livekit", livekit_service_url}]` (MSC4143).
 *   `turn`: the TURN server, for which clients get credentials made with the secret.
 */
export async function startSynapse({ folder, address = "127.0.0.1", port, serverName, transports, turn }) {
  mkdirSync(folder, { recursive: true });
  const secret = randomBytes(16).toString("hex");
  const url = `http://${address}:${port}`;
  const config = {
    server_name: serverName,
    public_baseurl: url,
    report_stats: false,
    pid_file: path.join(folder, "synapse.pid"),
    signing_key_path: path.join(folder, "signing.key"),
    media_store_path: path.join(folder, "media"),
    database: { name: "sqlite3", args: { database: path.join(folder, "synapse.db") } },
    // The token service verifies OpenID tokens at the federation endpoint of the same listener.
    listeners: [{ port, type: "http", bind_addresses: [address], resources: [{ names: ["client", "federation", "openid"] }] }],
    registration_shared_secret: secret,
    macaroon_secret_key: secret,
    form_secret: secret,
    bcrypt_rounds: 4, // test passwords; the default costs a second each
    trusted_key_servers: [],
    presence: { enabled: false },
    // What MatrixRTC needs: delayed leave, transports, state_after in sync, sticky events.
    max_event_delay_duration: "24h",
    matrix_rtc: { transports },
    extra_well_known_client_content: { "org.matrix.msc4143.rtc_foci": transports },
    experimental_features: { msc4143_enabled: true, msc4222_enabled: true, msc4354_enabled: true },
    ...(turn && { turn_uris: turn.uris, turn_shared_secret: turn.secret }),
    rc_message: NO_LIMIT,
    rc_delayed_event_mgmt: NO_LIMIT,
    rc_login: { address: NO_LIMIT, account: NO_LIMIT, failed_attempts: NO_LIMIT },
    rc_joins: { local: NO_LIMIT, remote: NO_LIMIT },
    rc_room_creation: NO_LIMIT,
  };
  writeFileSync(config.signing_key_path, `ed25519 a_parlour ${randomBytes(32).toString("base64").replaceAll("=", "")}\n`, { mode: 0o600 });
  const file = path.join(folder, "homeserver.yaml");
  writeFileSync(file, JSON.stringify(config, null, 1)); // JSON is YAML

  const service = new Service("Synapse", await python(), ["-m", "synapse.app.homeserver", "--config-path", file], {
    log: path.join(folder, "synapse.log"),
    cwd: folder,
  });
  await service.answers(`${url}/_matrix/client/versions`, START_TIMEOUT_MS);
  return new Synapse({ service, url, serverName, secret });
}

class Synapse {
  constructor({ service, url, serverName, secret }) {
    Object.assign(this, { service, url, serverName });
    this.secret = secret;
  }

  /** Registers `localpart` and logs it in on a new device. Source: Synapse's shared-secret registration. */
  async register(localpart, { displayName = localpart[0].toUpperCase() + localpart.slice(1), password = randomBytes(12).toString("hex") } = {}) {
    const endpoint = `${this.url}/_synapse/admin/v1/register`;
    const { nonce } = await (await fetch(endpoint)).json();
    const mac = createHmac("sha1", this.secret).update([nonce, localpart, password, "notadmin"].join("\0")).digest("hex");
    const response = await fetch(endpoint, {
      method: "POST",
      body: JSON.stringify({ nonce, username: localpart, displayname: displayName, password, admin: false, mac }),
    });
    const answer = await response.json();
    if (!response.ok) throw new Error(`Synapse did not register ${localpart}: ${JSON.stringify(answer)}`);
    return new MatrixUser({
      homeserver: this.url,
      userId: answer.user_id,
      deviceId: answer.device_id,
      token: answer.access_token,
      password,
      displayName,
    });
  }

  stop() {
    return this.service.stop();
  }
}
