// Builds the page into dist/: esbuild bundles the two entry points, the rest is copied. Called by npm run build|dev|test.
import { build, context } from "esbuild";
import { cp, mkdir, readdir, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";

const here = import.meta.dirname;
const dist = join(here, "dist");
const shared = { bundle: true, format: "esm", target: "es2022", logLevel: "warning" };

if (process.argv.includes("--tests")) {
    const out = join(here, ".test");
    await rm(out, { recursive: true, force: true });
    const tests = (await readdir(join(here, "test"))).filter((name) => name.endsWith(".test.ts"));
    await build({
        ...shared,
        platform: "node",
        packages: "external",
        outdir: out,
        entryPoints: tests.map((name) => join(here, "test", name)),
        outExtension: { ".js": ".mjs" },
    });
    process.exit(0);
}

await rm(dist, { recursive: true, force: true });
await mkdir(join(dist, "pkg"), { recursive: true });
await cp(join(here, "index.html"), join(dist, "index.html"));
await cp(join(here, "style.css"), join(dist, "style.css"));

// The crypto library fetches its WebAssembly from ./pkg/ beside the script that holds it.
const crypto = createRequire(createRequire(import.meta.url).resolve("matrix-js-sdk")).resolve("@matrix-org/matrix-sdk-crypto-wasm");
await cp(join(dirname(crypto), "pkg", "matrix_sdk_crypto_wasm_bg.wasm"), join(dist, "pkg", "matrix_sdk_crypto_wasm_bg.wasm"));

const page = {
    ...shared,
    platform: "browser",
    outdir: dist,
    entryPoints: {
        app: join(here, "src", "main.ts"),
        "e2ee-worker": "livekit-client/e2ee-worker",
    },
    splitting: true, // the crypto code is loaded only for encrypted rooms
    chunkNames: "[name]-[hash]", // flat: import.meta.url of every chunk is dist/
    minify: !process.argv.includes("--serve"),
    sourcemap: true,
    define: { global: "globalThis" },
    // Plain HTTP servers know .js; no file needs another type than the usual ones (.wasm must be application/wasm).
};

if (process.argv.includes("--serve")) {
    const watcher = await context(page);
    await watcher.watch();
    const { port } = await watcher.serve({ host: "127.0.0.1", port: 8090, servedir: dist });
    console.log(`http://127.0.0.1:${port}/`);
} else {
    await build(page);
}
