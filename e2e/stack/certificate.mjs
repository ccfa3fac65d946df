// A certificate for the server's addresses and names under an authority that only this run knows, and a home folder whose owner
// trusts it. Chromium on Linux reads the NSS database there, for pages and for TURN over TLS: what it accepts is really verified.
import { execFileSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import path from "node:path";

const run = (command, ...args) => execFileSync(command, args, { stdio: ["ignore", "pipe", "pipe"] });

/** @param {{folder: string, addresses?: string[], names?: string[]}} options  @returns paths: `{authority, certificate, key}` */
export function makeCertificate({ folder, addresses = [], names = [] }) {
  mkdirSync(folder, { recursive: true });
  const file = (name) => path.join(folder, name);
  const request = (name, subject, ...more) =>
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
      "-subj", `/CN=${subject}`, "-keyout", file(`${name}.key`), "-out", file(`${name}.pem`), ...more);
  request("authority", "Parlour test authority");
  const subjects = [...names.map((name) => `DNS:${name}`), ...addresses.map((address) => `IP:${address}`)];
  request("server", [...names, ...addresses][0], "-CA", file("authority.pem"), "-CAkey", file("authority.key"),
    "-addext", `subjectAltName=${subjects.join()}`, "-addext", "basicConstraints=critical,CA:FALSE", "-addext", "extendedKeyUsage=serverAuth");
  return { authority: file("authority.pem"), certificate: file("server.pem"), key: file("server.key") };
}

/** A home folder in `folder` for a browser that trusts the authority. */
export function homeThatTrusts({ folder, authority }) {
  const database = path.join(folder, ".pki/nssdb");
  mkdirSync(database, { recursive: true });
  run("certutil", "-N", "-d", `sql:${database}`, "--empty-password");
  run("certutil", "-A", "-d", `sql:${database}`, "-n", "authority", "-t", "C,,", "-i", authority);
  return folder;
}
