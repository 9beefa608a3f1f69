/** Tells which feed a line names: its server, path and query. */
import type { Given, CanonicalForm } from '../../options/define'
import { hashedQuery, canonicalServers } from '../../options/canonical-form'
import type { WsOptions } from './options'

const PORTS = { ws: 80, wss: 443 } as const

export function canonicalForm({ uri }: Given<WsOptions>): CanonicalForm {
  return {
    servers: canonicalServers(uri, PORTS[uri.scheme === 'wss' ? 'wss' : 'ws']),
    resources: [`${uri.path.replace(/\/+$/, '')}/${hashedQuery(uri.query)}`],
    // A feed may send different data to each user.
    options: { user: uri.user },
  }
}
