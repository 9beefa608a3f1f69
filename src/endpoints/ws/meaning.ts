/** Which feed is meant: its server, path and query. */
import type { Given, Meaning } from '../../options/define'
import { hashedQuery, serversOf } from '../../options/meaning'
import type { WsOptions } from './options'

const PORTS = { ws: 80, wss: 443 } as const

export function meaning({ uri }: Given<WsOptions>): Meaning {
  return {
    members: serversOf(uri, PORTS[uri.scheme === 'wss' ? 'wss' : 'ws']),
    things: [`${uri.path.replace(/\/+$/, '')}/${hashedQuery(uri.query)}`],
    // A feed may send each user something else.
    options: { user: uri.user },
  }
}
