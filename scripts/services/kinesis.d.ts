export type Kind = 'kinesalite' | 'kinesis-local' | 'dynalite'
export interface AwsServer {
  readonly kind: Kind | 'environment'
  /** HTTP/1.1 without TLS. */
  readonly endpoint: string
  /** Only kinesis-local has it: HTTP/1.1 over TLS, with a self-signed certificate. */
  readonly tlsEndpoint?: string
  readonly region: string
  readonly accessKey: string
  readonly secretKey: string
  readonly pid?: number
  readonly dir?: string
  readonly log?: string
  /** Ends it at once, as a power cut would. The data stay, except those of kinesis-local, which are in memory. */
  kill(): Promise<void>
  /** Holds the process still: connections stay, nothing is answered. */
  freeze(): void
  thaw(): void
  /** Starts it again on the same ports, with the same data; also after `kill`. */
  restart(): Promise<void>
  /** Ends it and removes its data. */
  stop(): Promise<void>
}
export function startKinesis(options?: {
  readonly kind?: 'kinesalite' | 'kinesis-local'
  readonly dir?: string
  readonly port?: number
}): Promise<AwsServer>
export function startDynamodb(options?: {
  readonly kind?: 'dynalite'
  readonly dir?: string
  readonly port?: number
}): Promise<AwsServer>
export function available(): readonly Kind[]
