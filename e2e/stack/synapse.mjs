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

/** A Synapse that runs; see [`Synapse`] for the options. */
export async function startSynapse(options) {
  const synapse = new Synapse(options);
  await synapse.start();
  return synapse;
}

/** A configured Synapse, which may be started, stopped and started again. */
class Synapse {
  /**
   * @param {{folder: string, address?: string, port: number, serverName: string, publicUrl?: string, transports: object[], turn?: {uris: string[], secret: string},
   *   registration?: string, authority?: string}} options
   *   `publicUrl`: where clients and other servers reach it, when something stands before it.
   *   `transports`: what clients are told about call servers, `[{type: "livekit", livekit_service_url}]` (MSC4143).
   *   `turn`: the TURN server, for which clients get credentials made with the secret.
   *   `registration`: a file that makes Parlour its application service. `authority`: a certificate that it trusts other servers by.
   */
  constructor({ folder, address = "127.0.0.1", port, serverName, publicUrl, transports, turn, registration, authority }) {
    mkdirSync(folder, { recursive: true });
    this.folder = folder;
    this.serverName = serverName;
    /** Where this process asks. */
    this.url = `http://${address}:${port}`;
    this.publicUrl = publicUrl ?? this.url;
    this.secret = randomBytes(16).toString("hex");
    this.config = path.join(folder, "homeserver.yaml");
    const config = {
      server_name: serverName,
      public_baseurl: this.publicUrl,
      serve_server_wellknown: true,
      report_stats: false,
      pid_file: path.join(folder, "synapse.pid"),
      signing_key_path: path.join(folder, "signing.key"),
      media_store_path: path.join(folder, "media"),
      database: { name: "sqlite3", args: { database: path.join(folder, "synapse.db") } },
      // The token service verifies OpenID tokens at the federation endpoint of the same listener.
      listeners: [{ port, type: "http", x_forwarded: true, bind_addresses: [address], resources: [{ names: ["client", "federation", "openid"] }] }],
      registration_shared_secret: this.secret,
      macaroon_secret_key: this.secret,
      form_secret: this.secret,
      bcrypt_rounds: 4, // test passwords; the default costs a second each
      trusted_key_servers: [],
      presence: { enabled: false },
      // What MatrixRTC needs: delayed leave, transports, state_after in sync, sticky events.
      max_event_delay_duration: "24h",
      matrix_rtc: { transports },
      extra_well_known_client_content: { "org.matrix.msc4143.rtc_foci": transports },
      experimental_features: {
        msc4143_enabled: true,
        msc4222_enabled: true,
        msc4354_enabled: true,
        // What an application service asks: who is in a room, and to stand behind the homeserver's own routes.
        ...(registration && { msc4502_enabled: true, msc4512_enabled: true }),
      },
      ...(registration && { app_service_config_files: [registration] }),
      ...(turn && { turn_uris: turn.uris, turn_shared_secret: turn.secret }),
      // The other servers are on this machine, and nowhere else.
      ...(authority && { federation_custom_ca_list: [authority], ip_range_blacklist: [] }),
      rc_message: NO_LIMIT,
      rc_delayed_event_mgmt: NO_LIMIT,
      rc_login: { address: NO_LIMIT, account: NO_LIMIT, failed_attempts: NO_LIMIT },
      rc_joins: { local: NO_LIMIT, remote: NO_LIMIT },
      rc_room_creation: NO_LIMIT,
    };
    writeFileSync(config.signing_key_path, `ed25519 a_parlour ${randomBytes(32).toString("base64").replaceAll("=", "")}\n`, { mode: 0o600 });
    writeFileSync(this.config, JSON.stringify(config, null, 1)); // JSON is YAML
  }

  async start() {
    this.service = new Service("Synapse", await python(), ["-m", "synapse.app.homeserver", "--config-path", this.config], {
      log: path.join(this.folder, "synapse.log"),
      cwd: this.folder,
    });
    await this.service.answers(`${this.url}/_matrix/client/versions`, START_TIMEOUT_MS);
  }

  /** Registers `localpart` and logs it in on a new device. */
  register(localpart, options) {
    return registerUser(this, localpart, options);
  }

  async stop() {
    await this.service?.stop();
  }
}

/** Registers `localpart` at the Synapse with that `registration_shared_secret` and logs it in on a new device. */
export async function registerUser({ url, secret }, localpart, { displayName = localpart[0].toUpperCase() + localpart.slice(1), password = randomBytes(12).toString("hex") } = {}) {
  const endpoint = `${url}/_synapse/admin/v1/register`;
  const { nonce } = await (await fetch(endpoint)).json();
  const mac = createHmac("sha1", secret).update([nonce, localpart, password, "notadmin"].join("\0")).digest("hex");
  const response = await fetch(endpoint, {
    method: "POST",
    body: JSON.stringify({ nonce, username: localpart, displayname: displayName, password, admin: false, mac }),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(`Synapse did not register ${localpart}: ${JSON.stringify(answer)}`);
  return new MatrixUser({ homeserver: url, userId: answer.user_id, deviceId: answer.device_id, token: answer.access_token, password, displayName });
}
