/**
 * A minimal S3 server for the demo on machines that have no other: it keeps objects in memory, takes path-style
 * addresses and ignores signatures. It knows PUT with If-None-Match, multipart uploads, HEAD, GET and ListObjectsV2.
 * Tests use real servers.
 */
'use strict'
const crypto = require('crypto')
const http = require('http')

function startStub() {
  const buckets = new Map()
  const uploads = new Map()
  const server = http.createServer((request, response) => {
    const parts = []
    request.on('data', (part) => {
      parts.push(part)
    })
    request.on('end', () => {
      const url = new URL(request.url, 'http://stub')
      const [bucket, ...rest] = decodeURIComponent(url.pathname.slice(1)).split('/')
      const answer = handle({
        method: request.method,
        bucket,
        key: rest.join('/'),
        query: url.searchParams,
        headers: request.headers,
        body: plain(request.headers, Buffer.concat(parts)),
      })
      response.writeHead(answer.status, answer.headers || {}).end(request.method === 'HEAD' ? undefined : answer.body)
    })
  })

  function handle({ method, bucket, key, query, headers, body }) {
    if (key === '') {
      if (method === 'PUT') {
        buckets.set(bucket, buckets.get(bucket) || new Map())
        return { status: 200 }
      }
      const objects = buckets.get(bucket)
      if (objects === undefined) return fault(404, 'NoSuchBucket')
      if (method === 'HEAD') return { status: 200 }
      const keys = [...objects.keys()].filter((name) => name.startsWith(query.get('prefix') || '')).sort()
      return xml(
        `<ListBucketResult><IsTruncated>false</IsTruncated><KeyCount>${keys.length}</KeyCount>${keys.map((name) => `<Contents><Key>${escaped(name)}</Key><Size>${objects.get(name).body.length}</Size></Contents>`).join('')}</ListBucketResult>`,
      )
    }
    const objects = buckets.get(bucket)
    if (objects === undefined) return fault(404, 'NoSuchBucket')
    const metadata = Object.fromEntries(
      Object.entries(headers).filter(([name]) => name.startsWith('x-amz-meta-') || name === 'content-type'),
    )
    const store = (content, meta) => {
      if (headers['if-none-match'] === '*' && objects.has(key)) return fault(412, 'PreconditionFailed')
      objects.set(key, { body: content, metadata: meta })
      return undefined
    }
    if (method === 'POST' && query.has('uploads')) {
      const id = crypto.randomUUID()
      uploads.set(id, { parts: new Map(), metadata })
      return xml(`<InitiateMultipartUploadResult><UploadId>${id}</UploadId></InitiateMultipartUploadResult>`)
    }
    const upload = uploads.get(query.get('uploadId'))
    if (method === 'PUT' && upload !== undefined) {
      upload.parts.set(Number(query.get('partNumber')), body)
      return { status: 200, headers: { etag: etag(body) } }
    }
    if (method === 'POST' && upload !== undefined) {
      const refused = store(
        Buffer.concat([...upload.parts].sort(([a], [b]) => a - b).map(([, part]) => part)),
        upload.metadata,
      )
      uploads.delete(query.get('uploadId'))
      return refused || xml('<CompleteMultipartUploadResult></CompleteMultipartUploadResult>')
    }
    if (method === 'DELETE') {
      uploads.delete(query.get('uploadId'))
      return { status: 204 }
    }
    if (method === 'PUT') return store(body, metadata) || { status: 200, headers: { etag: etag(body) } }
    const found = objects.get(key)
    if (found === undefined) return fault(404, 'NoSuchKey')
    return {
      status: 200,
      headers: Object.assign({ 'content-length': String(found.body.length), etag: etag(found.body) }, found.metadata),
      body: found.body,
    }
  }

  return new Promise((resolve) => {
    server.listen(0, '127.0.0.1', () => {
      resolve({
        kind: 'stub',
        endpoint: `http://127.0.0.1:${server.address().port}`,
        accessKey: 'stub',
        secretKey: 'stub-secret',
        stop: () =>
          new Promise((done) => {
            server.closeAllConnections()
            server.close(done)
          }),
      })
    })
  })
}

/** Removes the aws-chunked framing. */
function plain(headers, body) {
  if (
    !/aws-chunked/.test(headers['content-encoding'] || '') &&
    !/^STREAMING-/.test(headers['x-amz-content-sha256'] || '')
  )
    return body
  const parts = []
  for (let at = 0; at < body.length; ) {
    const end = body.indexOf('\r\n', at)
    const size = parseInt(body.toString('latin1', at, end), 16)
    if (!(size > 0)) break
    parts.push(body.subarray(end + 2, end + 2 + size))
    at = end + 2 + size + 2
  }
  return Buffer.concat(parts)
}

function etag(body) {
  return `"${crypto.createHash('md5').update(body).digest('hex')}"`
}
function escaped(text) {
  return text.replace(/[<>&]/g, (char) => `&#${char.charCodeAt(0)};`)
}
function xml(body) {
  return { status: 200, headers: { 'content-type': 'application/xml' }, body: `<?xml version="1.0"?>${body}` }
}
function fault(status, code) {
  return {
    status,
    headers: { 'content-type': 'application/xml' },
    body: `<?xml version="1.0"?><Error><Code>${code}</Code><Message>${code}</Message></Error>`,
  }
}

module.exports = { startStub }
