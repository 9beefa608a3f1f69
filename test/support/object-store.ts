/** Serves just enough of S3 on loopback to take objects, and keeps the last one of each key. */
import { serveHttp } from './http'

export interface ObjectStore {
  readonly endpoint: string
  readonly objects: ReadonlyMap<string, Buffer>
  /** Nobody is answered while it is away. */
  away: boolean
  stop(): Promise<void>
}

export async function startObjectStore(): Promise<ObjectStore> {
  const objects = new Map<string, Buffer>()
  const server = await serveHttp((request, response) => {
    if (store.away) {
      request.socket.destroy()
      return
    }
    const parts: Buffer[] = []
    request.on('data', (part: Buffer) => {
      parts.push(part)
    })
    request.on('end', () => {
      const checksums = Object.entries(request.headers)
        .filter(([name]) => name.startsWith('x-amz-checksum-'))
        .map(([name, value]) => [name, String(value)] as const)
      if (request.method === 'PUT')
        objects.set(decodeURIComponent((request.url ?? '').split('?')[0] ?? ''), Buffer.concat(parts))
      response.writeHead(200, { etag: '"0"', ...Object.fromEntries(checksums) }).end()
    })
  })
  const store: ObjectStore = { ...server, objects, away: false }
  return store
}

/** The lines of all objects, in the order of their keys. */
export function linesOf({ objects }: ObjectStore): readonly string[] {
  return [...objects]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .flatMap(([, bytes]) => bytes.toString().split('\n').slice(0, -1))
}
