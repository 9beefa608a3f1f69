/** S3 servers for tests, and a look into their buckets that owes nothing to the sink. */
import {
  CreateBucketCommand,
  GetObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client,
} from '@aws-sdk/client-s3'
import { type Kind, startS3 as start, type S3Server } from '../../scripts/services/s3'

export { available, type Kind, type S3Server } from '../../scripts/services/s3'

/** A server on a free port with a folder of its own; end it with `stop`. */
export function startS3(kind?: Kind, region?: string): Promise<S3Server> {
  return start({ ...(kind === undefined ? {} : { kind }), ...(region === undefined ? {} : { region }) })
}

export interface StoredObject {
  readonly key: string
  readonly bytes: Buffer
  readonly metadata: Readonly<Record<string, string>>
  readonly contentType: string | undefined
  readonly contentEncoding: string | undefined
}

/** A bucket, made anew, seen from outside. Call `close` at the end. */
export class Bucket {
  private constructor(
    readonly client: S3Client,
    readonly name: string,
  ) {}

  static async make(
    server: S3Server,
    name = `bucket-${Date.now().toString(36)}${Math.random().toString(36).slice(2, 8)}`,
    region = 'us-east-1',
  ): Promise<Bucket> {
    const client = new S3Client({
      endpoint: server.endpoint,
      region,
      forcePathStyle: true,
      credentials: { accessKeyId: server.accessKey, secretAccessKey: server.secretKey },
    })
    await client.send(new CreateBucketCommand({ Bucket: name }))
    return new Bucket(client, name)
  }

  /** Every key, in order. */
  async keys(prefix = ''): Promise<string[]> {
    const keys: string[] = []
    for (let token: string | undefined; ; ) {
      const page = await this.client.send(
        new ListObjectsV2Command({
          Bucket: this.name,
          Prefix: prefix,
          ...(token === undefined ? {} : { ContinuationToken: token }),
        }),
      )
      // versitygw lists folders as objects with a slash at the end.
      for (const { Key } of page.Contents ?? []) if (Key !== undefined && !Key.endsWith('/')) keys.push(Key)
      if (page.NextContinuationToken === undefined) return keys
      token = page.NextContinuationToken
    }
  }

  async get(key: string): Promise<StoredObject> {
    const { Body, Metadata, ContentType, ContentEncoding } = await this.client.send(
      new GetObjectCommand({ Bucket: this.name, Key: key }),
    )
    return {
      key,
      bytes: Buffer.from(await Body!.transformToByteArray()),
      metadata: Metadata ?? {},
      contentType: ContentType,
      contentEncoding: ContentEncoding,
    }
  }

  async all(prefix = ''): Promise<StoredObject[]> {
    const objects: StoredObject[] = []
    for (const key of await this.keys(prefix)) objects.push(await this.get(key))
    return objects
  }

  async put(key: string, bytes: Buffer, metadata: Record<string, string> = {}): Promise<void> {
    await this.client.send(new PutObjectCommand({ Bucket: this.name, Key: key, Body: bytes, Metadata: metadata }))
  }

  /**
   * Multipart uploads of the key that were begun and not ended. MinIO tells of them only when asked for the whole key.
   */
  async uploads(key: string): Promise<string[]> {
    const { Uploads } = await this.client.send(new ListMultipartUploadsCommand({ Bucket: this.name, Prefix: key }))
    return (Uploads ?? []).map((upload) => upload.UploadId ?? '')
  }

  close(): void {
    this.client.destroy()
  }
}
