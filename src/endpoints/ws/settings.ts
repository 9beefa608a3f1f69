/** Turns options into the settings of a connection. */
import type { Given } from '../../options/define'
import { readTls, type TlsSettings } from '../../options/tls'
import { parseSendEvery, type SendEvery, type WsOptions } from './options'

export interface Settings {
  readonly secure: boolean
  /** The host has no brackets. */
  readonly host: string
  readonly port: number
  /** Path and query as they are sent. */
  readonly target: string
  readonly headers: Readonly<Record<string, string | string[]>>
  readonly protocols: readonly string[]
  readonly send: readonly string[]
  readonly sendEvery: readonly SendEvery[]
  readonly tls: TlsSettings
  /** The value is `none` or a URL. If it is undefined, the environment decides. */
  readonly proxy: string | undefined
  readonly handshakeMs: number
  readonly pingMs: number
  readonly pongMs: number
  readonly silenceMs: number
  readonly compression: boolean
  /** A peer may take this long to answer our closing handshake, and to end TCP after its own. */
  readonly closeMs: number
  /** The connection ends at a larger message. */
  readonly maxMessage: number
  /** Removes secrets from text that came from elsewhere. */
  readonly redact: (text: string) => string
}

const PORTS = { ws: 80, wss: 443 } as const
/**
 * Reads the files that options name. It does so at every open, because certificates are renewed.
 * @throws Refused if a file cannot be read
 */
export async function settingsOf(given: Given<WsOptions>, maxMessage: number, closeMs: number): Promise<Settings> {
  const { uri, options } = given
  const secure = uri.scheme === 'wss'
  const host = uri.hosts[0]?.host ?? ''
  const headers: Record<string, string | string[]> = {}
  for (const [name, value] of options.header) {
    const known = Object.keys(headers).find((other) => other.toLowerCase() === name.toLowerCase()) ?? name
    const before = headers[known]
    headers[known] = before === undefined ? value : Array.isArray(before) ? [...before, value] : [before, value]
  }
  const login =
    uri.user === undefined && uri.password === undefined ? undefined : `${uri.user ?? ''}:${uri.password ?? ''}`
  const basic = login === undefined ? undefined : Buffer.from(login).toString('base64')
  if (basic !== undefined && !Object.keys(headers).some((name) => name.toLowerCase() === 'authorization'))
    headers['Authorization'] = `Basic ${basic}`
  const tls = await readTls(options)
  return {
    secure,
    host,
    headers,
    port: uri.hosts[0]?.port ?? PORTS[secure ? 'wss' : 'ws'],
    target: requestTarget(uri.path, uri.query),
    protocols: options.protocol,
    send: options.send,
    sendEvery: options.sendEvery.map(parseSendEvery),
    tls,
    proxy: options.proxy,
    handshakeMs: options.handshakeTimeout,
    pingMs: options.pingEvery,
    pongMs: options.pongTimeout,
    silenceMs: options.silence,
    compression: options.compression,
    maxMessage,
    closeMs,
    redact: redactorOf([
      ...options.header.flatMap(([, value]) => [value, ...value.split(/\s+/)]),
      ...options.send,
      ...options.sendEvery.map((raw) => parseSendEvery(raw).text),
      uri.password,
      login,
      basic,
      uri.query,
      ...(uri.query ?? '').split('&').map((pair) => pair.slice(pair.indexOf('=') + 1)),
      options.proxy,
      options.certKey,
      options.certPassword,
    ]),
  }
}

/** Returns path and query as typed. Only characters that no request line can contain are percent-encoded. */
function requestTarget(path: string, query: string | undefined): string {
  const typed = `${path.startsWith('/') ? path : `/${path}`}${query === undefined ? '' : `?${query}`}`
  return typed.replace(/[^\x21-\x7e]+/g, (run) => encodeURIComponent(run.toWellFormed()))
}

/**
 * Servers may repeat what they were sent (a reason that quotes the token), so it is redacted. Short values are left,
 * because they would remove harmless text.
 */
function redactorOf(values: readonly (string | undefined)[]): (text: string) => string {
  const secrets = [
    ...new Set(
      values
        .flatMap((value) => (value === undefined ? [] : [value, decodedOr(value)]))
        .filter((value) => value.length >= 4),
    ),
  ].sort((a, b) => b.length - a.length)
  return (text) => secrets.reduce((clean, secret) => clean.replaceAll(secret, '***'), text)
}
function decodedOr(value: string): string {
  try {
    return decodeURIComponent(value)
  } catch {
    return value
  }
}
