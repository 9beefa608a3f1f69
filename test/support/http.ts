import { request } from 'node:http'

/** An answer over a unix socket; undefined where nobody answers (yet). */
export function httpGet(socketPath: string, path: string): Promise<{ readonly code: number; readonly body: string } | undefined> {
  return new Promise((resolve) => {
    request({ socketPath, path }, (response) => {
      let body = ''
      response.on('data', (text: Buffer) => { body += text.toString() })
      response.on('end', () => { resolve({ code: response.statusCode ?? 0, body }) })
    }).on('error', () => { resolve(undefined) }).end()
  })
}
