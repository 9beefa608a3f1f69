/**
 * How requests go out to AWS: by the proxy that the environment names for their host, and with bounds on what comes
 * back. One for each client, and for what asks for its credentials.
 */
import * as http from 'node:http'
import * as https from 'node:https'
import type { Duplex } from 'node:stream'
import * as tls from 'node:tls'
import type { NodeHttpHandler } from '@smithy/node-http-handler'
import { Disconnected, lineOf, Refused, UsageError } from '../core/errors'
import { type Destination, isHttpProxy, proxyAddress, proxyFromEnvironment, type ProxyEnvironment } from '../kit/proxy'
import { openTunnel, TunnelRefused } from '../kit/tunnel'
import { limitResponse, type HttpResponse } from './response-limits'

export interface HandlerSettings {
  /** Milliseconds in which a connection has to be there. */
  readonly connectMs: number
  /** Milliseconds without a byte after which a request is given up. */
  readonly idleMs?: number
  /** Milliseconds that a request may take in all. */
  readonly requestMs?: number
  readonly maxSockets: number
  /** Bytes of an answer that is no error. */
  readonly maxBytes: number
  /** Speaks HTTP/2 to this host, where no proxy stands in between. */
  readonly http2?: Pick<Destination, 'host' | 'port'>
}
/** As clients of the SDK take it. */
export type RequestHandler = NodeHttpHandler

interface HttpRequest {
  readonly protocol: string
  readonly hostname: string
  readonly port?: number
  readonly method: string
}
interface HttpHandler {
  handle(request: HttpRequest, options?: unknown): Promise<{ readonly response: HttpResponse }>
  destroy(): void
  updateHttpClientConfig(key: string, value: unknown): void
  httpHandlerConfigs(): object
}

export async function createRequestHandler(
  settings: HandlerSettings,
  environment: ProxyEnvironment = process.env,
): Promise<RequestHandler> {
  const { NodeHttpHandler: Http1, NodeHttp2Handler: Http2 } = await import('@smithy/node-http-handler')
  const { connectMs, idleMs, requestMs, maxSockets } = settings
  const agentOptions = { keepAlive: true, maxSockets }
  const http1 = (httpAgent: http.Agent, httpsAgent: https.Agent): HttpHandler =>
    new Http1({
      connectionTimeout: connectMs,
      httpAgent,
      httpsAgent,
      ...(idleMs === undefined ? {} : { socketTimeout: idleMs }),
      ...(requestMs === undefined ? {} : { requestTimeout: requestMs, throwOnRequestTimeout: true }),
    })
  const http2 = settings.http2 !== undefined && proxyOf({ secure: true, ...settings.http2 }, environment) === undefined
  const direct = http2
    ? // By default the SDK makes a connection for each request where it speaks HTTP/2; event streams have one of their
      // own in any case.
      (new Http2({
        ...(idleMs === undefined ? {} : { requestTimeout: idleMs }),
        disableConcurrentStreams: false,
      }) as unknown as HttpHandler)
    : http1(new http.Agent(agentOptions), new https.Agent(agentOptions))
  const proxiedBy = (proxy: URL): HttpHandler =>
    http1(
      new http.Agent({ ...agentOptions, proxyEnv: { HTTP_PROXY: proxy.href } }),
      new TunnelAgent(agentOptions, proxy, connectMs),
    )
  return new ProxiedHandler(
    direct,
    http2 ? 'h2' : 'http/1.1',
    proxiedBy,
    settings.maxBytes,
    environment,
  ) as unknown as RequestHandler
}

/** ALL_PROXY may name one of another kind for programs that speak it. */
function proxyOf(destination: Destination, environment: ProxyEnvironment): URL | undefined {
  try {
    const proxy = proxyFromEnvironment(destination, environment)
    return proxy !== undefined && isHttpProxy(proxy) ? proxy : undefined
  } catch (error) {
    throw new UsageError([lineOf(error)])
  }
}

class ProxiedHandler implements HttpHandler {
  readonly metadata: { readonly handlerProtocol: string }
  private readonly proxied = new Map<string, HttpHandler>()

  constructor(
    private readonly direct: HttpHandler,
    handlerProtocol: string,
    private readonly proxiedBy: (proxy: URL) => HttpHandler,
    private readonly maxBytes: number,
    private readonly environment: ProxyEnvironment,
  ) {
    this.metadata = { handlerProtocol }
  }

  async handle(request: HttpRequest, options?: unknown): Promise<{ readonly response: HttpResponse }> {
    const answered = await this.handlerFor(request).handle(request, options)
    await limitResponse(request.method, answered.response, this.maxBytes)
    return answered
  }

  destroy(): void {
    for (const each of [this.direct, ...this.proxied.values()]) each.destroy()
  }
  updateHttpClientConfig(key: string, value: unknown): void {
    this.direct.updateHttpClientConfig(key, value)
  }
  httpHandlerConfigs(): object {
    return this.direct.httpHandlerConfigs()
  }

  private handlerFor({ protocol, hostname, port }: HttpRequest): HttpHandler {
    // The SDK prepares a request for one protocol.
    if (this.metadata.handlerProtocol === 'h2') return this.direct
    const secure = protocol === 'https:'
    const proxy = proxyOf(
      { secure, host: hostname.replace(/^\[|\]$/g, ''), port: port ?? (secure ? 443 : 80) },
      this.environment,
    )
    if (proxy === undefined) return this.direct
    const known = this.proxied.get(proxy.href)
    if (known !== undefined) return known
    const made = this.proxiedBy(proxy)
    this.proxied.set(proxy.href, made)
    return made
  }
}

/**
 * Each of its connections goes through the proxy. Node's own agent takes any amount of bytes for the proxy's answer.
 */
class TunnelAgent extends https.Agent {
  constructor(
    options: https.AgentOptions,
    private readonly proxy: URL,
    private readonly connectMs: number,
  ) {
    super(options)
  }

  override createConnection(
    options: https.RequestOptions,
    callback?: (error: Error | null, socket: Duplex) => void,
  ): Duplex | null | undefined {
    const host = options.host ?? ''
    openTunnel(this.proxy, host, Number(options.port), AbortSignal.timeout(this.connectMs)).then(
      (socket) => {
        callback?.(null, tls.connect({ ...(options as tls.ConnectionOptions), socket }))
      },
      (error: unknown) => {
        ;(callback as ((error: Error) => void) | undefined)?.(tunnelFault(error, this.proxy, this.connectMs))
      },
    )
    return undefined
  }
}

function tunnelFault(error: unknown, proxy: URL, connectMs: number): Error {
  const { host, port } = proxyAddress(proxy)
  const at = `the proxy ${host}:${port}`
  const facts = { cause: error }
  if (error instanceof TunnelRefused) {
    const { status, message } = error
    if (status === 407) return new Refused(`${message}: HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT logs in`, facts)
    if (status >= 500 || status === 408 || status === 429) return new Disconnected(message, facts)
    return new Refused(`${message}: it does not let this connection through; NO_PROXY=HOST goes without it`, facts)
  }
  const code = (error as NodeJS.ErrnoException).code ?? ''
  if (/CERT|SELF_SIGNED|UNABLE_TO_|ERR_TLS_/.test(code))
    return new Refused(
      `the certificate of ${at} cannot be trusted (${code}): name its authority in NODE_EXTRA_CA_CERTS`,
      facts,
    )
  if (code === 'EPROTO' || code.startsWith('ERR_SSL_'))
    return new Refused(`${at} does not speak TLS: HTTPS_PROXY=http://${host}:${port} may be meant`, facts)
  if ((error as Error).name === 'TimeoutError')
    return new Disconnected(`${at} opened no tunnel within ${connectMs / 1000} s`, facts)
  return new Disconnected(`${at}: ${lineOf(error)}`, facts)
}
