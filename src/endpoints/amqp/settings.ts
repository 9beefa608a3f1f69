/** Turns options into the settings of a connection. */
import { hostname } from 'node:os'
import type { Given, Role } from '../../options/define'
import { readTls } from '../../options/tls'
import type { AmqpOptions } from './options'

export interface BrokerAddress {
  readonly host: string
  readonly port: number
}
export interface Settings {
  readonly secure: boolean
  /** The hosts in the given order. */
  readonly hosts: readonly BrokerAddress[]
  readonly vhost: string
  /** It is undefined if the client certificate is the login. */
  readonly login: { readonly user: string; readonly password: string } | undefined
  readonly tls: {
    readonly ca?: string
    readonly cert?: string
    readonly key?: string
    readonly passphrase?: string
    readonly servername?: string
    readonly rejectUnauthorized: boolean
  }
  /** Seconds, or undefined for the broker's choice. */
  readonly heartbeat: number | undefined
  readonly connectMs: number
  readonly name: string
  readonly frameMax: number
  readonly channelMax: number
  /** Removes secrets from text that came from elsewhere. */
  readonly redact: (text: string) => string
}

export const PORTS = { amqp: 5672, amqps: 5671 } as const
/** A fresh broker has this user, on loopback only. RabbitMQ's URIs mean it if they name no user. */
export const GUEST = 'guest'

/**
 * Reads the files that options name. It does so at every open, because certificates are renewed.
 * @throws Refused if a file cannot be read
 */
export async function settingsOf({ uri, options }: Given<AmqpOptions>, role: Role): Promise<Settings> {
  const secure = uri.scheme === 'amqps'
  const tls = await readTls(options)
  const anonymous = uri.user === undefined && uri.password === undefined
  const what = role === 'source' ? `from ${options.queue ?? ''}` : `to ${options.queue ?? options.exchange ?? ''}`
  return {
    secure,
    vhost: vhostOf(uri.path),
    hosts: uri.hosts.map(({ host, port }) => ({ host, port: port ?? PORTS[secure ? 'amqps' : 'amqp'] })),
    login:
      options.authMechanism === 'external'
        ? undefined
        : { user: anonymous ? GUEST : (uri.user ?? ''), password: anonymous ? GUEST : (uri.password ?? '') },
    tls: { ...tls, rejectUnauthorized: !isInsecure(options) },
    heartbeat: options.heartbeat === undefined ? undefined : Math.ceil(options.heartbeat / 1000),
    connectMs: options.connectionTimeout,
    name: options.connectionName ?? `manifold ${what.trim()} (${hostname()}, ${process.pid})`,
    frameMax: options.frameMax,
    channelMax: options.channelMax,
    redact: redactorOf([uri.password, options.certPassword]),
  }
}

export function isInsecure(options: { readonly tlsInsecure: boolean; readonly verify: string }): boolean {
  return options.tlsInsecure || options.verify === 'verify_none'
}

/**
 * `amqp://h`, `amqp://h/` and `amqp://h/%2F` all mean the vhost `/`. In RabbitMQ's URIs the second one means an empty
 * vhost, which exists nowhere.
 */
export function vhostOf(path: string): string {
  const typed = path.replace(/^\//, '')
  return typed === '' ? '/' : decodeURIComponent(typed)
}

/** Short values are left, because they would remove harmless text. */
function redactorOf(values: readonly (string | undefined)[]): (text: string) => string {
  const secrets = values.filter((value): value is string => value !== undefined && value.length >= 4)
  return (text) => secrets.reduce((clean, secret) => clean.replaceAll(secret, '***'), text)
}
