// Makes a page's connections go through TURN, and tells which way they went. The functions run inside the page (or
// Element Call's frame), so each stands alone and imports nothing.

/** How a client reaches the TURN server: the URLs that say so, and what statistics call it. */
export const WAYS = {
  udp: "^turn:[^?]*(\\?transport=udp)?$",
  tcp: "^turn:.*\\?transport=tcp$",
  tls: "^turns:.*\\?transport=tcp$",
};

/**
 * From now on every RTCPeerConnection of the page uses those TURN URLs only that match `way`, and no other candidates than
 * relayed ones unless `policy` says "all". `iceServers` stand in for those that the page is given.
 */
export function steer({ way = "", policy = "relay", iceServers }) {
  const steered = (configuration) => ({
    ...configuration,
    iceTransportPolicy: policy,
    iceServers: (iceServers ?? configuration?.iceServers ?? [])
      .map((server) => ({ ...server, urls: [server.urls].flat().filter((url) => new RegExp(way).test(url)) }))
      .filter(({ urls }) => urls.length > 0),
  });
  const connections = (window.steeredConnections = []);
  window.RTCPeerConnection = class extends RTCPeerConnection {
    constructor(configuration, ...more) {
      super(steered(configuration), ...more);
      connections.push(this);
    }

    setConfiguration(configuration) {
      super.setConfiguration(steered(configuration));
    }
  };
}

/** Of each connection of the page that stands: the pair of candidates in use, `{local, protocol, relayProtocol, remote, address}`. */
export async function chosenPairs(connections = window.steeredConnections) {
  const open = connections.filter((connection) => connection.connectionState !== "closed");
  const reports = await Promise.all(open.map((connection) => connection.getStats()));
  return reports.flatMap((report) => {
    const transport = [...report.values()].find((entry) => entry.type === "transport" && entry.selectedCandidatePairId);
    if (!transport) return [];
    const pair = report.get(transport.selectedCandidatePairId);
    const [local, remote] = [report.get(pair.localCandidateId), report.get(pair.remoteCandidateId)];
    return [{ local: local.candidateType, protocol: local.protocol, relayProtocol: local.relayProtocol, remote: remote.candidateType, address: remote.address }];
  });
}
