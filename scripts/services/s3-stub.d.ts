export interface S3Stub {
  readonly kind: 'stub'
  readonly endpoint: string
  readonly accessKey: string
  readonly secretKey: string
  stop(): Promise<void>
}
/** Starts it on a free port of loopback; buckets are made by PUT. */
export function startStub(): Promise<S3Stub>
