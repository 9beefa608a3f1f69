export type Kind = 'versitygw' | 'minio' | 'moto'
export interface S3Server {
  readonly kind: Kind | 'environment'
  readonly endpoint: string
  readonly accessKey: string
  readonly secretKey: string
  readonly pid?: number
  /** The folder of its data. */
  readonly dir?: string
  /** Ends it at once, as a power cut would. The data stay. */
  kill(): Promise<void>
  /** Holds the process still: connections stay, nothing is answered. */
  freeze(): void
  thaw(): void
  /** Starts it again on the same port, with the same data. */
  restart(): Promise<void>
  /** Ends it and removes its data. */
  stop(): Promise<void>
}
export function startS3(options?: {
  readonly kind?: Kind
  readonly dir?: string
  readonly port?: number
  readonly region?: string
}): Promise<S3Server>
export function available(): readonly Kind[]
export const kinds: Readonly<Record<Kind, { readonly file: string }>>
