// Makes a page's connections go through TURN alone, and tells which way they went. The functions run inside the page (or
// Element Call's frame), so each stands alone and imports nothing.

/** How a client reaches the TURN server: the URLs that say so, and what statistics call it. */
export const WAYS = {
  udp: "^turn:[^?]*(\\?transport=udp)?$",
  tcp: "^turn:.*\\?transport=tcp$",
  tls: "^turns:.*\\?transport=tcp$",
};

/**
 * From now on every RTCPeerConnection of the page uses relayed candidates only, of those TURN URLs that match `way`.
 * `iceServers` stand in for those that the page is given.
 */
export function relayOnly({ way, iceServers }) {
  const restricted = (configuration) => ({
    ...configuration,
    iceTransportPolicy: "relay",
    iceServers: (iceServers ?? configuration?.iceServers ?? [])
      .map((server) => ({ ...server, urls: [server.urls].flat().filter((url) => new RegExp(way).test(url)) }))
      .filter(({ urls }) => urls.length > 0),
  });
  const connections = (window.relayedConnections = []);
  window.RTCPeerConnection = class extends RTCPeerConnection {
    constructor(configuration, ...more) {
      super(restricted(configuration), ...more);
      connections.push(this);
    }

    setConfiguration(configuration) {
      super.setConfiguration(restricted(configuration));
    }
  };
}

/** Of each connection of the page that stands: the pair of candidates in use, `{local, relayProtocol, remote, address}`. */
export async function chosenPairs(connections = window.relayedConnections) {
  const open = connections.filter((connection) => connection.connectionState !== "closed");
  const reports = await Promise.all(open.map((connection) => connection.getStats()));
  return reports.flatMap((report) => {
    const transport = [...report.values()].find((entry) => entry.type === "transport" && entry.selectedCandidatePairId);
    if (!transport) return [];
    const pair = report.get(transport.selectedCandidatePairId);
    const [local, remote] = [report.get(pair.localCandidateId), report.get(pair.remoteCandidateId)];
    return [{ local: local.candidateType, relayProtocol: local.relayProtocol, remote: remote.candidateType, address: remote.address }];
  });
}
