// The web server that operators have before everything: HTTPS and WebSockets by host name, on the well-known ports, passed on
// to plain HTTP. What Caddy and nginx do with config/Caddyfile and config/nginx.conf.
import { readFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";

export const HTTPS_PORT = 443;
export const FEDERATION_PORT = 8448;

/**
 * @param {{address: string, port?: number, tls: {certificate: string, key: string}, backends: Record<string, (path: string) => string | undefined>}} options
 *   `backends`: host name → what names the backend for a path, as a URL.
 * @returns {Promise<{stop(): Promise<void>}>}
 */
export async function startFront({ address, port = HTTPS_PORT, tls, backends }) {
  const server = https.createServer({ cert: readFileSync(tls.certificate), key: readFileSync(tls.key) });

  /** The same request to the backend, or `null` when nobody stands behind the host name. */
  function passOn({ method, url, headers, socket }) {
    const backend = backends[headers.host?.split(":")[0]]?.(url);
    if (!backend) return null;
    const more = { "x-forwarded-for": socket.remoteAddress, "x-forwarded-proto": "https" };
    return http.request(new URL(url, backend), { method, headers: { ...headers, ...more } });
  }

  server.on("request", (request, response) => {
    const passed = passOn(request);
    if (!passed) return response.writeHead(404).end();
    passed.on("response", (answer) => answer.pipe(response.writeHead(answer.statusCode, answer.headers)));
    passed.on("error", () => (response.headersSent ? response.destroy() : response.writeHead(502).end()));
    response.on("close", () => passed.destroy());
    request.pipe(passed);
  });

  server.on("upgrade", (request, socket, head) => {
    const passed = passOn(request);
    if (!passed) return socket.destroy();
    const sendHead = ({ statusCode, statusMessage, rawHeaders }) => {
      const lines = rawHeaders.map((text, i) => (i % 2 === 0 ? `${text}: ` : `${text}\r\n`)).join("");
      socket.write(`HTTP/1.1 ${statusCode} ${statusMessage}\r\n${lines}\r\n`);
    };
    passed.on("upgrade", (answer, behind, first) => {
      sendHead(answer);
      socket.write(first);
      behind.write(head);
      for (const [from, to] of [[socket, behind], [behind, socket]]) from.pipe(to).on("error", () => from.destroy());
      for (const [one, other] of [[socket, behind], [behind, socket]]) one.on("close", () => other.destroy());
    });
    passed.on("response", (answer) => {
      sendHead(answer);
      answer.pipe(socket);
    });
    passed.on("error", () => socket.destroy());
    socket.on("error", () => passed.destroy());
    passed.end();
  });

  await new Promise((resolve, reject) => server.once("error", reject).listen(port, address, resolve));
  return {
    stop() {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    },
  };
}
