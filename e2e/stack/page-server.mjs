// Serves what runs in the browser and is not the web demo (Parlour serves that itself), on one port:
//   /host/                  our widget host, bundled from e2e/host/
//   /peer/                  a bare livekit-client page, bundled from e2e/peer/
//   /element-call/<mode>/   the unmodified Element Call, with `matrix_rtc_mode` = <mode> in its config.json
import { readFile } from "node:fs/promises";
import http from "node:http";
import path from "node:path";
import { build } from "esbuild";
import { E2E } from "./places.mjs";

const MODULES = path.join(E2E, "node_modules");
const ELEMENT_CALL = path.join(MODULES, "@element-hq/element-call-embedded/dist");
const CRYPTO_WASM = path.join(MODULES, "@matrix-org/matrix-sdk-crypto-wasm/pkg");

/** How Element Call writes membership and picks its SFU; `compatibility` is its default. */
export const MODES = ["legacy", "compatibility", "matrix_2_0"];

const TYPES = {
  ".css": "text/css", ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".json": "application/json", ".map": "application/json",
  ".mjs": "text/javascript", ".mp3": "audio/mpeg", ".ogg": "audio/ogg", ".png": "image/png", ".svg": "image/svg+xml", ".ttf": "font/ttf",
  ".wasm": "application/wasm", ".webp": "image/webp", ".woff2": "font/woff2",
};

async function bundle(entry) {
  const { outputFiles } = await build({
    entryPoints: [path.join(E2E, entry)],
    bundle: true,
    write: false,
    format: "esm",
    target: "chrome120",
    define: { global: "globalThis" },
    logLevel: "warning",
  });
  return outputFiles[0].contents;
}

async function elementCallConfig(mode) {
  const config = JSON.parse(await readFile(path.join(ELEMENT_CALL, "config.json"), "utf8"));
  return JSON.stringify({ ...config, matrix_rtc_mode: mode });
}

/** @param {{address?: string, port: number}} options  @returns {Promise<{url: string, stop(): Promise<void>}>} */
export async function startPageServer({ address = "127.0.0.1", port }) {
  // What is not a file as it lies on the disk: bundles and Element Call's config.
  const made = new Map();
  for (const page of ["host", "peer"]) made.set(`/${page}/${page}.js`, await bundle(`${page}/${page}.js`));
  for (const mode of MODES) made.set(`/element-call/${mode}/config.json`, await elementCallConfig(mode));

  const folders = [
    ["/host/pkg/", CRYPTO_WASM], // the bundle looks for its WebAssembly beside itself
    ["/host/", path.join(E2E, "host")],
    ["/peer/", path.join(E2E, "peer")],
    ...MODES.map((mode) => [`/element-call/${mode}/`, ELEMENT_CALL]),
  ];

  async function contentOf(pathname) {
    const name = pathname.endsWith("/") ? `${pathname}index.html` : pathname;
    const content = made.get(name);
    if (content) return { name, content };
    for (const [prefix, folder] of folders) {
      if (!name.startsWith(prefix)) continue;
      const file = path.join(folder, name.slice(prefix.length));
      if (!file.startsWith(folder + path.sep)) break;
      return { name, content: await readFile(file) };
    }
    throw new Error("no such page");
  }

  const server = http.createServer((request, response) => {
    const { pathname } = new URL(request.url, "http://127.0.0.1");
    contentOf(decodeURIComponent(pathname)).then(
      ({ name, content }) => response.writeHead(200, { "Content-Type": TYPES[path.extname(name)] ?? "application/octet-stream" }).end(content),
      () => response.writeHead(404, { "Content-Type": "text/plain" }).end("not found\n"),
    );
  });
  await new Promise((resolve, reject) => server.once("error", reject).listen(port, address, resolve));
  return {
    url: `http://${address}:${port}`,
    stop() {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    },
  };
}
