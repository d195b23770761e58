package archive

import (
	"archive/tar"
	"bufio"
	"compress/bzip2"
	"compress/gzip"
	"fmt"
	"io"
)

// tar unpacks a tar stream. What follows its end is read too: a stream that is
// cut off or damaged there is damaged.
func (u *unpacker) tar(src io.Reader, format Format) error {
	stream, err := decompress(src, format)
	if err != nil {
		return err
	}
	r := tar.NewReader(stream)
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return damaged(err)
		}
		if err := u.tarEntry(h, r); err != nil {
			return err
		}
	}
	rest, err := io.Copy(io.Discard, io.LimitReader(stream, maxTail+1))
	if err != nil {
		return damaged(err)
	}
	if rest > maxTail {
		return damaged(fmt.Errorf("more than %d bytes follow its end", maxTail))
	}
	return nil
}

// maxTail is how many bytes may follow the end of a tar: tools fill up blocks.
const maxTail = 1 << 20

func decompress(src io.Reader, format Format) (io.Reader, error) {
	src = bufio.NewReaderSize(src, 256<<10)
	switch format {
	case TarGzip:
		r, err := gzip.NewReader(src)
		if err != nil {
			return nil, damaged(err)
		}
		return r, nil
	case TarBzip2:
		return bzip2.NewReader(src), nil
	}
	return src, nil
}

func (u *unpacker) tarEntry(h *tar.Header, r io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := u.name(h.Name)
	if err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeReg:
		if name == "." {
			return refuse(h.Name, "it is the directory itself", "")
		}
		const anyExecute = 0o111
		return u.file(name, h.Mode&anyExecute != 0, h.Size, r)
	case tar.TypeDir:
		return u.dir(name)
	case tar.TypeSymlink, tar.TypeLink:
		return refuse(h.Name, fmt.Sprintf("it is a link to %.200q", h.Linkname), "pack the files themselves: tar --dereference --hard-dereference")
	}
	return refuse(h.Name, fmt.Sprintf("expected a file or a directory, it has type %q", h.Typeflag), "")
}
